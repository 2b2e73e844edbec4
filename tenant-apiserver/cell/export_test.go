package cell

import "time"

// SetDebutWait changes how long requests wait for the first companion of a control plane.
func SetDebutWait(d time.Duration) { debutWait = d }

// Leave is what a cell does that ends by itself, when nothing has changed for quiet: its
// tenants go on in no process until another has them.
func (c *Cell) Leave(quiet time.Duration) bool {
	left := c.leave(quiet)
	if left {
		c.cancel()
	}
	return left
}

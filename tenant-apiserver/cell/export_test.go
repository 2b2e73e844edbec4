package cell

import "time"

// Leave is what a cell does that ends by itself, when nothing has changed for quiet.
func (c *Cell) Leave(quiet time.Duration) bool { return c.leave(quiet) }

package idle

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// lateness is how long after its time upstream's controller may come to a cron job.
const lateness = 10 * time.Second

// cronJob: due at its next time, which counts from the last one, or from the making
// of the object. A time that has just passed may not have been used yet; one that
// passed longer ago was used, or was not to be used (another job of it ran, the
// deadline for starting was over).
func cronJob(c *batchv1.CronJob, now time.Time) Verdict {
	if c.DeletionTimestamp != nil || c.Spec.Suspend != nil && *c.Spec.Suspend {
		return Verdict{}
	}
	schedule, err := parse(c)
	if err != nil {
		// Upstream leaves it alone until it is changed. Here it is only not known
		// whether that is what upstream sees too.
		return busy("cron job", c, "has a schedule that cannot be read: "+err.Error())
	}
	last := c.CreationTimestamp.Time
	if c.Status.LastScheduleTime != nil {
		last = c.Status.LastScheduleTime.Time
	}
	next := following(schedule, last, later(last, now.Add(-lateness)))
	if next.IsZero() { // a day that never comes
		return Verdict{}
	}
	if !next.After(now) {
		return busy("cron job", c, "is due at "+next.UTC().Format(time.RFC3339)+", and was not seen to")
	}
	return due(next)
}

// following returns the first time of a schedule after a moment, which is not before
// last: that is what "@every" counts from.
func following(s cron.Schedule, last, after time.Time) time.Time {
	if every, ok := s.(cron.ConstantDelaySchedule); ok {
		return after.Add(every.Delay - after.Sub(last)%every.Delay)
	}
	return s.Next(after)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// parse reads the schedule as upstream's controller does.
func parse(c *batchv1.CronJob) (s cron.Schedule, err error) {
	defer func() { // this version of cron panics on some texts, such as "TZ=0"
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	text := c.Spec.Schedule
	if zone := c.Spec.TimeZone; zone != nil && !strings.Contains(text, "TZ") {
		if _, err := time.LoadLocation(*zone); err != nil {
			return nil, err
		}
		text = "TZ=" + *zone + " " + text
	}
	return cron.ParseStandard(text)
}

package idle

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// cronJob: due at its next time, which counts from the last one, or from the making
// of the object. A time that has passed was either used, or was not to be used
// (another job of it ran, the deadline for starting was over).
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
	next := schedule.Next(last)
	if !next.After(now) {
		next = schedule.Next(now)
		if every, ok := schedule.(cron.ConstantDelaySchedule); ok { // "@every": counted from last
			next = now.Add(every.Delay - now.Sub(last)%every.Delay)
		}
	}
	if next.IsZero() { // a day that never comes
		return Verdict{}
	}
	return due(next)
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

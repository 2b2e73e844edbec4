package store

// faultPoints are all of them.
var faultPoints = []faultPoint{
	faultGroupEvaluated,
	faultSegmentMade,
	faultSegmentFilled,
	faultSegmentFlushed,
	faultSegmentReady,
	faultFrameWritten,
	faultFrameFlushed,
	faultGroupPublished,
	faultSweep,
	faultRotate,
	faultRotated,
	faultCheckpointBegun,
	faultCheckpointHalf,
	faultCheckpointApplied,
	faultCheckpointFlushed,
	faultShrinkCopied,
	faultShrinkRenamed,
	faultShrinkKept,
	faultSegmentFree,
	faultSegmentShrunk,
	faultRecovered,
	faultCloseCheckpointed,
	faultCloseSegmentGone,
	faultCloseSegmentsGone,
}

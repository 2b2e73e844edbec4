package store

// fault marks a place where a crash is tried: tests set onFault and end the
// process there. Every place has a name of its own below.
func fault(at faultPoint) {
	if onFault != nil {
		onFault(at)
	}
}

// onFault is nil but in tests.
var onFault func(faultPoint)

type faultPoint string

// The places, in the order in which a store meets them.
const (
	faultGroupEvaluated    faultPoint = "group-evaluated"     // nothing of it is written
	faultBallastFilled     faultPoint = "ballast-filled"      // it has its blocks, who needs it has not
	faultSegmentMade       faultPoint = "segment-made"        // the file is there, empty
	faultSegmentFilled     faultPoint = "segment-filled"      // zeros are written, not flushed
	faultSegmentFlushed    faultPoint = "segment-flushed"     // flushed, its folder is not
	faultSegmentReady      faultPoint = "segment-ready"       // room is known to be there
	faultPrepareBegun      faultPoint = "prepare-begun"       // the other segment is to be made ready, groups go on
	faultPrepared          faultPoint = "prepared"            // it is on disk, the writer does not know
	faultPrepareTaken      faultPoint = "prepare-taken"       // the writer does
	faultFrameWritten      faultPoint = "frame-written"       // not flushed
	faultFrameFlushed      faultPoint = "frame-flushed"       // not published
	faultGroupPublished    faultPoint = "group-published"     // not acknowledged
	faultSweep             faultPoint = "sweep"               // a slice of a compaction is evaluated
	faultSegmentFull       faultPoint = "segment-full"        // and the other one is prepared
	faultRotate            faultPoint = "rotate"              // the other segment is to be written to
	faultRotated           faultPoint = "rotated"             // and is
	faultCheckpointBegun   faultPoint = "checkpoint-begun"    // nothing is applied
	faultCheckpointHalf    faultPoint = "checkpoint-half"     // half of it is
	faultCheckpointApplied faultPoint = "checkpoint-applied"  // all, not committed
	faultCheckpointFlushed faultPoint = "checkpoint-flushed"  // committed: bbolt flushed twice
	faultShrinkCopied      faultPoint = "shrink-copied"       // a smaller file is beside the file
	faultShrinkRenamed     faultPoint = "shrink-renamed"      // and in its place, its folder is not flushed
	faultShrinkKept        faultPoint = "shrink-kept"         // and is read and written to
	faultSegmentFree       faultPoint = "segment-free"        // to be written over
	faultSegmentShrunk     faultPoint = "segment-shrunk"      // the store is idle
	faultBallastCut        faultPoint = "ballast-cut"         // to what little log is left
	faultRecovered         faultPoint = "recovered"           // the log is read, nothing applied
	faultCloseCheckpointed faultPoint = "close-checkpointed"  // the log is there and not needed
	faultCloseSegmentGone  faultPoint = "close-segment-gone"  // half of the log is removed
	faultCloseSegmentsGone faultPoint = "close-segments-gone" // all of it
)

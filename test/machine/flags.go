package machine

// Flags are more flags of `sublet up`. They are to be set before Main, if at all.
var Flags []string

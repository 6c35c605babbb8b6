package trust

// Long is the flag -long, for the tests outside of the package.
var Long = long

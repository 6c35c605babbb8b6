// Package channeltest makes channels that are honest and channels that are not, for tests of whoever judges channels: keys that it generates,
// histories of loose objects in memory, and for each the verdict it is to have ([Cases]). Each case has one fault, and the kind of refusal is part of the
// answer. Where this project is stricter than Guix, the case says why.
//
// It shares no code with what it tests but the names of things: the OpenPGP packets and git objects are put together by hand, so that they can be wrong
// in every way.
package channeltest

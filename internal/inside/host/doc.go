// Package host judges a Guix host: what its store has, what its roots keep, and whether it may.
//
// # What it reads
//
// Of the host, natively and without its help: the daemon's database, the links that are roots, the store directory, and on the machine itself what running
// processes use. Of the enclave: the root, from the fingerprint on paper; the officers' orders; the allowlists of the host's tracks; what builders said. These
// come from a copy of the enclave's public directory ([Public]) or from depots ([Depot]), and are verified alike. Nothing of the host is believed that the enclave's
// documents contradict, and nothing of the documents is believed that is older than what this host has accepted before ([State]).
//
// # The database
//
// The daemon may be writing while it is read. SQLite itself would lock it and leave files beside it, as another user perhaps; so it is copied, by reading alone, in a way
// that gives the state after one whole transaction (copyDatabase says why), and the copy is opened. It is read by scans of the two tables, whose definitions must be the daemon's; each
// page is known to stand in one place before that. A row with values that the daemon never writes is kept, and its item is unknown.
//
// # Links
//
// Every path is resolved in the host's own root directory, link by link, absolute targets beginning there again: so a disk that is mounted somewhere is judged as
// if it were running. No link leads out; loops, long chains and deep directories end in a report or an error. A path that enters the store ends there: what lies
// in an item never decides what a root keeps.
//
// Roots are what the garbage collector takes for roots, and somewhat more: a chain of links may be long. A NAME-N-link is a generation of the profile NAME.
//
// # What an item can be
//
//	recalled     a tombstone is of its content or its name, or of the derivation that makes it
//	altered      its content is not what the database says, or names something bad that the database does not (only where contents are read);
//	             or a derivation's references are not those of its text
//	differs      it is not what the enclave says: another nar, another size, other references
//	disputed     builders disagree on it
//	affected     it refers, at whatever distance, to what was recalled
//	missing      the database has it, the store does not
//	unknown      nothing explains it
//	derived      something that was recalled went into making it
//	built        an allowed derivation makes it; no quorum says yet what it is
//	local        it was added here and its path is that of its content, or a derivation of the host's own makes it: profiles, manifests, grafts
//	break-glass  officers let it in for a while
//	fixed        an allowed derivation makes it and says its hash
//	agreed       an allowed derivation makes it and a quorum agrees on it
//	allowed      the allowlist names it
//
// The first seven are refused if a root keeps the item (an altered one always); the others are not, except that [Rules] may add derived, or built and
// local. That what was built from something recalled stays allowed until it is recalled itself is the judgement of the depot too.
//
// # What it cannot tell
//
// A local item is bound to what made it, or to its content, and to nothing else: a user who builds what he likes is not found out by this. That an item which claims to be made here
// was not brought in from elsewhere shows only where the enclave knows the derivation. Without reading contents a check is as good as the database. And whoever is root on the host
// may change this program, too: what is to be relied on is run from elsewhere, over the disk.
//
// # Which derivation makes an item
//
// Hosts that take outputs from a depot have no derivations. Candidates are the one that the database names, those that builders spoke of, and the allowed ones of
// the right name (an output is called as its derivation, with -ID behind it); their files come from the host's store, from a depot, or from what an earlier check fetched, and are taken only
// with the allowlist's digest. Where a file is not to be had, what a quorum of builders says that the derivation makes is believed. Derivations of the host's own are
// recomputed, path and outputs, with all that they stand on.
//
// # The order of reading
//
// Roots and directories first, then the database: what a root or the disk had before the copy was made is in the copy, or was deleted since. An item of the copy that is not
// on disk is looked up in a second copy. So a check beside a busy daemon reports nothing that was not so.
//
// # Reports
//
// A [Report] is a text (docs/spec/host-report.md) that is carried to the station, where [Record] enters it into the ledger and keeps it as a blob. [Reports] and [Holders] tell
// which hosts have reported against which orders, and which have an item.
//
// # Bounds
//
// 2,000,000 items, 64,000,000 references and 8 GiB of database; 4,000,000 names in listed directories, 64 levels, 40 links a path; half an hour for the database. Over a bound is an
// error, never a shorter result.
package host

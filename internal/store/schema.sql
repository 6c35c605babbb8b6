-- The catalog of a zone, version 2 (PRAGMA user_version). What it knows beside
-- the ledger can be made again from the published ledger and the blobs.

-- The ledger: leaves, each with the hashes that storage order (as
-- golang.org/x/mod/sumdb/tlog counts them) puts behind it: its own, and that of
-- each perfect subtree that it completes, the smallest first; and each signed
-- checkpoint, with the time of the newest entry that the station made.
CREATE TABLE entry (idx INTEGER PRIMARY KEY, hashes BLOB NOT NULL, leaf BLOB NOT NULL);
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB NOT NULL, time TEXT NOT NULL);

-- What is published beside the ledger, with the size of the ledger that has the
-- deed to which it belongs. The content is here or, by digest, in the cas.
CREATE TABLE public (path TEXT PRIMARY KEY, size INTEGER NOT NULL, data BLOB, blob TEXT) WITHOUT ROWID;
CREATE INDEX public_size ON public (size);

-- Single values of the zone, such as the digest its root is pinned to.
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Blobs that an entry names because rows hang on them (package attach).
CREATE TABLE attachment (sha256 TEXT PRIMARY KEY, leaf INTEGER NOT NULL) WITHOUT ROWID;

-- Content. One content may have several names.
CREATE TABLE item (
  sha256 TEXT NOT NULL, size INTEGER NOT NULL, kind TEXT NOT NULL,
  name TEXT NOT NULL, added TEXT NOT NULL, PRIMARY KEY (sha256, name)
) WITHOUT ROWID;
CREATE INDEX item_name ON item (name);

-- Shipments, on both sides. state: quarantined, admitted, rejected or lost. Inside, numbers below zero are submissions, own-1 being -1; manifest is
-- their item then.
CREATE TABLE shipment (
  number INTEGER PRIMARY KEY, manifest TEXT NOT NULL, state TEXT NOT NULL, importer TEXT NOT NULL,
  date TEXT NOT NULL, items INTEGER NOT NULL, bytes INTEGER NOT NULL
);
CREATE TABLE shipment_item (
  number INTEGER NOT NULL, sha256 TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (number, sha256, name)
) WITHOUT ROWID;
CREATE INDEX shipment_item_sha256 ON shipment_item (sha256);
CREATE TABLE finding (
  number INTEGER NOT NULL, item TEXT NOT NULL, severity TEXT NOT NULL, rule TEXT NOT NULL,
  place TEXT NOT NULL, count INTEGER NOT NULL, detail TEXT NOT NULL
);
CREATE INDEX finding_number ON finding (number);
CREATE TABLE collected (
  sha256 TEXT NOT NULL, size INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
  request TEXT NOT NULL, added TEXT NOT NULL, PRIMARY KEY (sha256, name)
) WITHOUT ROWID;

-- Outside: where the channels stand, each pin with its text, and what is excused.
CREATE TABLE pin (
  channel TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, text BLOB NOT NULL, added TEXT NOT NULL,
  PRIMARY KEY (channel, number)
) WITHOUT ROWID;
CREATE TABLE excuse (
  name TEXT PRIMARY KEY, code TEXT NOT NULL, channel TEXT NOT NULL, about TEXT NOT NULL, key TEXT NOT NULL,
  until TEXT NOT NULL, person TEXT NOT NULL, reason TEXT NOT NULL, added TEXT NOT NULL
) WITHOUT ROWID;

-- Trust.
CREATE TABLE root (version INTEGER PRIMARY KEY, digest TEXT NOT NULL, note BLOB NOT NULL);
CREATE TABLE orders (version INTEGER PRIMARY KEY, digest TEXT NOT NULL, note BLOB NOT NULL);
CREATE TABLE allowlist (
  track TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, note TEXT NOT NULL,
  PRIMARY KEY (track, version)
) WITHOUT ROWID;
CREATE TABLE proposal (track TEXT PRIMARY KEY, version INTEGER NOT NULL, shipment INTEGER, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE proposal_signature (
  track TEXT NOT NULL, person TEXT NOT NULL, line TEXT NOT NULL, PRIMARY KEY (track, person)
) WITHOUT ROWID;
CREATE TABLE witness (name TEXT PRIMARY KEY, size INTEGER NOT NULL, note BLOB NOT NULL) WITHOUT ROWID;

-- Inside: what the depot serves and what builders said.
CREATE TABLE narinfo (
  track TEXT NOT NULL, hash TEXT NOT NULL, path TEXT NOT NULL, body BLOB NOT NULL, nar TEXT NOT NULL,
  blob TEXT NOT NULL, form TEXT NOT NULL, PRIMARY KEY (track, hash)
) WITHOUT ROWID;
CREATE INDEX narinfo_nar ON narinfo (nar);
CREATE TABLE built (
  derivation TEXT NOT NULL, keyid TEXT NOT NULL, sha256 TEXT NOT NULL, leaf INTEGER NOT NULL, envelope BLOB NOT NULL,
  PRIMARY KEY (derivation, sha256)
) WITHOUT ROWID;
CREATE TABLE agreed (derivation TEXT PRIMARY KEY, leaf INTEGER NOT NULL) WITHOUT ROWID;

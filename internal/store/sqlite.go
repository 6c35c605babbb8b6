package store

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite" // named in this file only
)

//go:embed schema.sql
var schema string

// Version of the catalog's schema, in PRAGMA user_version. Another one is refused; [Upgrade] is an operator's command.
const schemaVersion = 2

const (
	catalogFile = "catalog.sqlite"
	// busyTimeout is how long a process waits for another one's transaction, in milliseconds.
	busyTimeout = 10_000
	maxReaders  = 8
)

// dsn names a catalog for the driver. Transactions begin immediate: one that
// begins by reading and then writes cannot be helped by the busy timeout.
func dsn(path string, mode string, readOnly bool) string {
	q := url.Values{}
	q.Set("mode", mode)
	q.Set("_txlock", "immediate")
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeout))
	q.Add("_pragma", "journal_mode(WAL)")
	q.Add("_pragma", "synchronous(FULL)")
	q.Add("_pragma", "foreign_keys(ON)")
	q.Add("_pragma", "trusted_schema(OFF)")
	if readOnly {
		q.Add("_pragma", "query_only(ON)")
		q.Set("_txlock", "deferred")
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// createCatalog makes the catalog of a new zone.
func createCatalog(ctx context.Context, dir string) error {
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, catalogFile), "rwc", false))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return fmt.Errorf("catalog: schema: %w", err)
	}
	if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return checkPragmas(ctx, db)
}

// isBusy says whether a statement gave up waiting for another process.
func isBusy(err error) bool {
	var e *sqlite.Error
	const busy = 5 // SQLITE_BUSY, in the low byte of extended codes
	return errors.As(err, &e) && e.Code()&0xff == busy
}

// A catalog is the two pools of one SQLite file.
type catalog struct {
	path     string
	writerDB *sql.DB
	writer   *sql.Conn // the one writing connection
	readers  *sql.DB
}

func openCatalog(ctx context.Context, dir string) (_ *catalog, err error) {
	path := filepath.Join(dir, catalogFile)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c := &catalog{path: path}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.writerDB, err = sql.Open("sqlite", dsn(path, "rw", false)); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c.writerDB.SetMaxOpenConns(1)
	if c.writer, err = c.writerDB.Conn(ctx); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if err := checkPragmas(ctx, c.writer); err != nil {
		return nil, err
	}
	var version int
	if err := c.writer.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if version != schemaVersion {
		return nil, &SchemaError{version, schemaVersion}
	}
	if c.readers, err = sql.Open("sqlite", dsn(path, "rw", true)); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c.readers.SetMaxOpenConns(maxReaders)
	var only int
	if err := c.readers.QueryRowContext(ctx, "PRAGMA query_only").Scan(&only); err != nil || only != 1 {
		return nil, fmt.Errorf("catalog: readers could write (query_only is %d): %w", only, err)
	}
	return c, nil
}

// checkPragmas asks whether the settings took: a misspelt one is ignored in silence.
func checkPragmas(ctx context.Context, db Querier) error {
	for _, p := range []struct{ name, want string }{
		{"journal_mode", "wal"},
		{"synchronous", "2"},
		{"busy_timeout", fmt.Sprint(busyTimeout)},
		{"foreign_keys", "1"},
		{"trusted_schema", "0"},
	} {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+p.name).Scan(&got); err != nil {
			return fmt.Errorf("catalog: %s: %w", p.name, err)
		}
		if !strings.EqualFold(got, p.want) {
			return fmt.Errorf("catalog: %s is %s, want %s; a file system without shared memory cannot hold a zone", p.name, got, p.want)
		}
	}
	return nil
}

func (c *catalog) close() error {
	var errs []error
	if c.readers != nil {
		errs = append(errs, c.readers.Close())
	}
	if c.writer != nil {
		errs = append(errs, c.writer.Close())
	}
	if c.writerDB != nil {
		errs = append(errs, c.writerDB.Close())
	}
	return errors.Join(errs...)
}

// A Querier reads the catalog. [*sql.DB], [*sql.Conn] and [*sql.Tx] are queriers.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

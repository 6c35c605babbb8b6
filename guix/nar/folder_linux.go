package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// What is here is done for every file of a tree. Package os does it correctly, at about
// twice the cost: it looks at each file of a directory that belongs to a root
// when listing it, and prepares each open file for polling and finalizing.

// readDir lists dir, unsorted. The types come from the directory itself and may be modeUnknown.
func readDir(dir *os.File) ([]dirent, error) {
	var list []dirent
	buf := make([]byte, 16<<10)
	for {
		n, err := again(func() (int, error) { return syscall.ReadDirent(int(dir.Fd()), buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return list, nil
		}
		// struct linux_dirent64: inode 8, offset 8, length 2, type 1, name, NUL
		const lengthAt, typeAt, nameAt = 16, 18, 19
		for b := buf[:n]; len(b) > 0; {
			if len(b) < nameAt {
				return nil, errDirent
			}
			length := int(binary.NativeEndian.Uint16(b[lengthAt:]))
			if length < nameAt || length > len(b) {
				return nil, errDirent
			}
			name := b[nameAt:length]
			end := bytes.IndexByte(name, 0)
			if end < 0 {
				return nil, errDirent
			}
			mode := direntMode(b[typeAt])
			b = b[length:]
			if s := string(name[:end]); s != "." && s != ".." {
				list = append(list, dirent{s, mode})
			}
		}
	}
}

var errDirent = errors.New("the kernel returned a malformed directory")

func direntMode(t byte) fs.FileMode {
	switch t {
	case syscall.DT_REG:
		return 0
	case syscall.DT_DIR:
		return fs.ModeDir
	case syscall.DT_LNK:
		return fs.ModeSymlink
	case syscall.DT_FIFO:
		return fs.ModeNamedPipe
	case syscall.DT_SOCK:
		return fs.ModeSocket
	case syscall.DT_CHR:
		return fs.ModeDevice | fs.ModeCharDevice
	case syscall.DT_BLK:
		return fs.ModeDevice
	}
	return modeUnknown
}

// openIn opens the regular file name in dir. It follows no link, and does not wait for a
// pipe that has taken the file's place.
func openIn(dir *os.File, _ *os.Root, name string) (file, error) {
	const flags = syscall.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_NOCTTY | syscall.O_CLOEXEC
	fd, err := again(func() (int, error) { return syscall.Openat(int(dir.Fd()), name, flags, 0) })
	if err != nil {
		return nil, err
	}
	return &rawFile{fd: fd}, nil
}

// A rawFile is a descriptor of a file.
type rawFile struct {
	fd   int
	size int64
	read int64
}

func (f *rawFile) stat() (int64, bool, error) {
	var st syscall.Stat_t
	if _, err := again(func() (int, error) { return 0, syscall.Fstat(f.fd, &st) }); err != nil {
		return 0, false, err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return 0, false, errChanged
	}
	f.size = st.Size
	return st.Size, st.Mode&0o100 != 0, nil
}

// Read returns io.EOF with the last bytes if the file has its size and less than was asked for.
func (f *rawFile) Read(p []byte) (int, error) {
	n, err := again(func() (int, error) { return syscall.Read(f.fd, p) })
	if err != nil {
		return 0, err
	}
	f.read += int64(n)
	if n == 0 || n < len(p) && f.read == f.size {
		return n, io.EOF
	}
	return n, nil
}

func (f *rawFile) Close() error { return syscall.Close(f.fd) }

// again calls f until no signal interrupts it.
func again(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

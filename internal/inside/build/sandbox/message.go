package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the child's processes say to the caller, one packet each, over a socket that the builder does not inherit.
const (
	msgShm  = "shm"  // comes with the descriptor of /dev/shm
	msgFail = "fail" // a step of the set-up
	msgExec = "exec" // the program could not be executed
	msgExit = "exit" // the builder's wait status, from the supervisor
)

type message struct {
	Type   string        `json:"type"`
	Step   string        `json:"step,omitempty"`
	Error  string        `json:"error,omitempty"`
	Errno  syscall.Errno `json:"errno,omitempty"`
	Status uint32        `json:"status,omitempty"`
}

const (
	maxMessage = 16 << 10
	maxSpec    = 64 << 20

	// Descriptors of the supervisor and of the builder before it is the builder.
	fdSpec    = 3
	fdControl = 4
)

func send(m message, rights ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		m.Error = m.Error[:min(len(m.Error), 1024)]
		if b, err = json.Marshal(m); err != nil {
			return err
		}
	}
	var oob []byte
	if len(rights) > 0 {
		oob = unix.UnixRights(rights...)
	}
	for {
		err := unix.Sendmsg(fdControl, b, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive reads the next message and the descriptor that came with it; ok is false at the end.
func receive(fd int) (m message, file *os.File, ok bool, err error) {
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn, flags int
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || n == 0 {
		return m, nil, false, err
	}
	if oobn > 0 {
		cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return m, nil, false, err
		}
		for _, c := range cmsgs {
			fds, err := unix.ParseUnixRights(&c)
			if err != nil {
				return m, nil, false, err
			}
			for _, fd := range fds {
				if file != nil {
					unix.Close(fd)
					continue
				}
				file = os.NewFile(uintptr(fd), "/dev/shm")
			}
		}
	}
	if flags&unix.MSG_TRUNC != 0 {
		return m, file, false, fmt.Errorf("a message of the sandbox is too long")
	}
	if err := json.Unmarshal(buf[:n], &m); err != nil {
		return m, file, false, fmt.Errorf("a message of the sandbox: %w", err)
	}
	return m, file, true, nil
}

func readSpec() (*Spec, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fdSpec, &st); err != nil {
		return nil, err
	}
	if st.Size <= 0 || st.Size > maxSpec {
		return nil, fmt.Errorf("description of %d bytes", st.Size)
	}
	b := make([]byte, st.Size)
	for off := 0; off < len(b); {
		n, err := unix.Pread(fdSpec, b[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("description ends at %d of %d bytes", off, len(b))
		}
		off += n
	}
	spec := new(Spec)
	if err := json.Unmarshal(b, spec); err != nil {
		return nil, err
	}
	return spec, nil
}

package isolate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The parent and init talk over a stream socket in frames: a header of fixed
// size, with descriptors attached, then a body. Both sides trust each other;
// nothing of the task's can reach the socket. The coding is by hand because
// init is to stay small.

// The kinds of frames.
const (
	frameSetup   = iota + 1 // body: setup; answered by frameOK with the root's descriptor
	frameSpawn              // body: Program; answered by frameSpawned or frameError
	frameKill               // kill everything; answered when nothing is left
	frameStop               // halt everything
	frameCont               // let it continue
	frameAlive              // answered by frameOK with a body of one byte
	frameOK                 // the answers repeat the id of the request
	frameError              // body: step, errno, text
	frameExit               // unasked; id of the spawn; body: wait status
	frameGuest              // the first of a guest's connection; answered by frameOK with the root's and the main program's descriptors
	frameMain               // frameSpawn of the main program, with the container's own output
	frameMark               // writes the body to the container's output
	frameStats              // answered by frameOK with a body of six numbers
	frameSignal             // body: id of a spawn, signal; for a program that has no pidfd outside
	frameResize             // body: id of a spawn, columns, rows; for a terminal that is inside
	frameNetwork            // answered by frameOK with the descriptor of the network namespace
	frameHold               // descriptors that pid 1 of a guest keeps open
	frameHolding            // body: index; answered by frameOK with those descriptors from there on, and how many there are
)

const (
	headerSize = 16
	// maxBody is more than the kernel takes as arguments and environment, and
	// leaves room for generated files.
	maxBody = 64 << 20
	// maxFDs is the kernel's limit for one message.
	maxFDs = 253
)

// A frame is one message.
type frame struct {
	kind byte
	id   uint64
	body []byte
	fds  []int
}

// A rawConn is a socket whose calls may have to be made again once it is
// ready. The parent waits in the runtime's poller; init blocks in the call.
type rawConn interface {
	read(f func(fd int) error) error
	write(f func(fd int) error) error
}

// blocking is the rawConn of a socket in blocking mode.
type blocking int

func (b blocking) read(f func(fd int) error) error  { return untilDone(int(b), f) }
func (b blocking) write(f func(fd int) error) error { return untilDone(int(b), f) }

func untilDone(fd int, f func(fd int) error) error {
	for {
		if err := f(fd); err != unix.EINTR {
			return err
		}
	}
}

// polled is the rawConn of a socket in non-blocking mode.
type polled struct{ raw syscall.RawConn }

func (p polled) read(f func(fd int) error) error  { return whenReady(p.raw.Read, f) }
func (p polled) write(f func(fd int) error) error { return whenReady(p.raw.Write, f) }

func whenReady(wait func(func(fd uintptr) bool) error, f func(fd int) error) (err error) {
	closed := wait(func(fd uintptr) bool {
		err = untilDone(int(fd), f)
		return err != unix.EAGAIN
	})
	if closed != nil {
		return closed
	}
	return err
}

// send writes one frame. The descriptors stay the caller's.
func send(c rawConn, f *frame) error {
	if len(f.fds) > maxFDs {
		return fmt.Errorf("%d mounts are more than the %d that can be handed over", len(f.fds), maxFDs)
	}
	if len(f.body) > maxBody {
		return fmt.Errorf("%d bytes of generated files, arguments and environment are more than %d", len(f.body), maxBody)
	}
	header := make([]byte, headerSize, headerSize+len(f.body))
	binary.LittleEndian.PutUint32(header, uint32(len(f.body)))
	header[4] = f.kind
	binary.LittleEndian.PutUint64(header[8:], f.id)
	rest := append(header, f.body...)
	rights := []byte(nil)
	if len(f.fds) > 0 {
		rights = unix.UnixRights(f.fds...)
	}
	for len(rest) > 0 {
		err := c.write(func(fd int) error {
			n, err := unix.SendmsgN(fd, rest, rights, nil, unix.MSG_NOSIGNAL)
			if err == nil {
				rest, rights = rest[n:], nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// receive reads one frame. The descriptors are the caller's, and closed on
// exec. io.EOF says that the other side is gone.
func receive(c rawConn) (*frame, error) {
	header := make([]byte, headerSize)
	fds, err := fill(c, header, make([]byte, unix.CmsgSpace(4*maxFDs)))
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	f := &frame{kind: header[4], id: binary.LittleEndian.Uint64(header[8:]), fds: fds}
	size := binary.LittleEndian.Uint32(header)
	if size > maxBody {
		closeAll(fds)
		return nil, errors.New("caisson: bug: a frame that is too large")
	}
	f.body = make([]byte, size)
	if _, err := fill(c, f.body, nil); err != nil {
		closeAll(fds)
		return nil, err
	}
	return f, nil
}

// fill reads exactly len(buf) bytes, and the descriptors that come with them,
// for which oob is room.
func fill(c rawConn, buf, oob []byte) (fds []int, err error) {
	for len(buf) > 0 {
		n, oobn := 0, 0
		err := c.read(func(fd int) (err error) {
			n, oobn, _, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
			return err
		})
		if err == nil && n == 0 || err == unix.ECONNRESET {
			err = io.EOF
		}
		if err != nil {
			return fds, err
		}
		more, err := rights(oob[:oobn])
		if fds = append(fds, more...); err != nil {
			return fds, err
		}
		buf = buf[n:]
	}
	return fds, nil
}

// rights returns the descriptors in a control message.
func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range list {
		more, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, more...)
	}
	return fds, nil
}

// closeAll closes descriptors; negative ones are none.
func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// closeFiles closes files.
func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// An encoder appends values to a body. A decoder takes them in the same order.
type encoder struct{ buf []byte }

func (e *encoder) int(n int64)    { e.buf = binary.AppendVarint(e.buf, n) }
func (e *encoder) bytes(b []byte) { e.int(int64(len(b))); e.buf = append(e.buf, b...) }
func (e *encoder) text(s string)  { e.int(int64(len(s))); e.buf = append(e.buf, s...) }

func (e *encoder) bool(b bool) {
	e.int(0)
	if b {
		e.buf[len(e.buf)-1] = 2 // a varint 1
	}
}

func (e *encoder) texts(list []string) {
	e.int(int64(len(list)))
	for _, s := range list {
		e.text(s)
	}
}

// A decoder takes values out of a body. It panics where the body is torn,
// which only a bug can bring about.
type decoder struct{ buf []byte }

func (d *decoder) int() int64 {
	n, size := binary.Varint(d.buf)
	if size <= 0 {
		panic("caisson: bug: a torn frame")
	}
	d.buf = d.buf[size:]
	return n
}

func (d *decoder) bytes() []byte {
	n := d.int()
	b := d.buf[:n:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) text() string { return string(d.bytes()) }
func (d *decoder) bool() bool   { return d.int() != 0 }

func (d *decoder) texts() []string {
	list := make([]string, d.int())
	for i := range list {
		list[i] = d.text()
	}
	return list
}

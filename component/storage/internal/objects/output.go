package objects

import (
	"context"
	"strings"

	"github.com/caissonrun/caisson/internal/crash"
)

const outputBuffer = 256 << 10

// An output is the objects of a new version.
type output struct {
	ctx     context.Context
	s       *Storage
	folder  string
	name    string
	data    Object
	buf     []byte
	rows    int64
	changed bool // a row is not what it was
	stamps  stampWriter
	times   Object // nil: there is none

	stampsName string
	print      Print
	made       []string // what is there under its key
}

func (o *output) write(b []byte) error {
	large := len(b) >= outputBuffer/8 // not worth a copy
	if large || len(o.buf)+len(b) > cap(o.buf) {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if large {
		_, err := o.data.Write(b)
		return err
	}
	o.buf = append(o.buf, b...)
	return nil
}

func (o *output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	_, err := o.data.Write(o.buf)
	o.buf = o.buf[:0]
	return err
}

// add writes a row that is new.
func (o *output) add(line []byte, stamp int64) error { return o.block(line, 1, stamp) }

// old writes a row that was there.
func (o *output) old(line []byte, stamp int64) error { return o.oldBlock(line, 1, stamp) }

func (o *output) block(rows []byte, n, stamp int64) error {
	o.changed = true
	return o.oldBlock(rows, n, stamp)
}

func (o *output) oldBlock(rows []byte, n, stamp int64) error {
	o.rows += n
	if err := o.stamps.add(stamp, n); err != nil {
		return err
	}
	return o.write(rows)
}

// commit makes the objects durable; nothing names them yet.
func (o *output) commit() error {
	if err := o.flush(); err != nil {
		return err
	}
	differ, err := o.stamps.finish()
	if err != nil {
		return err
	}
	if differ {
		o.stampsName = strings.TrimSuffix(o.name, ".csv") + ".rows"
		crash.Point(crash.StampsBefore)
		if _, err := o.times.Commit(); err != nil {
			return err
		}
		o.made = append(o.made, o.stampsName)
		crash.Point(crash.StampsAfter)
	}
	crash.Point(crash.RowsBefore)
	o.print, err = o.data.Commit()
	if err != nil {
		return err
	}
	o.made = append(o.made, o.name)
	crash.Point(crash.RowsAfter)
	return nil
}

func (o *output) close(used bool) {
	_ = o.data.Close()
	if o.times != nil {
		_ = o.times.Close()
	}
	if used {
		return
	}
	for _, name := range o.made {
		_ = o.s.store.Remove(context.WithoutCancel(o.ctx), o.folder+"/"+name)
	}
}

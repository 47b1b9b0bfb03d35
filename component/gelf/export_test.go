package gelf

import (
	"net"
	"time"
)

// Frame returns what a connection that sends these pieces says.
func Frame(most int, pieces ...[]byte) []*Message {
	return collect(most, func(l *Listener) {
		f := framer{l: l}
		for _, piece := range pieces {
			f.write(piece)
		}
		f.end()
	})
}

// Datagrams returns what these datagrams of one sender say, and how many sets of
// chunks were waited for at most.
func Datagrams(most int, datagrams ...[]byte) (got []*Message, sets int) {
	got = collect(most, func(l *Listener) {
		all := chunkSets{l: l, sets: map[string]*chunkSet{}}
		for _, data := range datagrams {
			l.datagram(&all, &net.UDPAddr{}, data)
			sets = max(sets, len(all.sets))
		}
		all.end()
	})
	return got, sets
}

func collect(most int, send func(*Listener)) (got []*Message) {
	l := &Listener{opts: Options{MaxMessage: most}, queue: make(chan *Message), now: time.Now}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m := range l.queue {
			got = append(got, m)
		}
	}()
	send(l)
	close(l.queue)
	<-done
	return got
}

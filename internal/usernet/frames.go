package usernet

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/caissonrun/caisson/internal/dhcp"
)

// maxFrame is the largest frame that is read: QEMU has none above.
const maxFrame = 68 << 10

// fromGuest takes the guest's frames until the connection ends. A length that no
// frame has ends it, too: what follows could not be told apart.
func (n *Network) fromGuest() {
	defer n.wg.Done()
	defer n.cancel()
	in := bufio.NewReaderSize(n.conn, maxFrame)
	buf := make([]byte, maxFrame)
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(head[:])
		if size > maxFrame {
			return
		}
		frame := buf[:size]
		if _, err := io.ReadFull(in, frame); err != nil {
			return
		}
		if answer := n.lease.Answer(frame); answer != nil {
			if n.send(answer) != nil {
				return
			}
			continue
		}
		if admitted(frame) {
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(bytes.Clone(frame))})
			n.link.InjectInbound(0, pkt)
			pkt.DecRef()
		}
	}
}

// toGuest writes frames for the guest.
func (n *Network) toGuest() {
	defer n.wg.Done()
	for {
		pkt := n.link.ReadContext(n.ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		err := n.send(view.AsSlice())
		view.Release()
		pkt.DecRef()
		if err != nil {
			return
		}
	}
}

// send writes one frame.
func (n *Network) send(frame []byte) error {
	n.writing.Lock()
	defer n.writing.Unlock()
	_, err := n.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

// admitted reports whether a frame is one that the stack is to see: questions for
// the address of a neighbour, and packets of IPv4 that the guest sends by its own
// address. The stack answers for whatever address it is asked by; a ping may so
// only reach the gateway.
func admitted(frame []byte) bool {
	if len(frame) < header.EthernetMinimumSize || dhcp.Is(frame) {
		return false
	}
	own, body := Guest.Addr().As4(), frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		a := header.ARP(body)
		return a.IsValid() && bytes.Equal(a.ProtocolAddressSender(), own[:])
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(body)
		if len(ip) < header.IPv4MinimumSize || !ip.IsValid(len(ip)) || ip.SourceAddress().As4() != own {
			return false
		}
		switch ip.TransportProtocol() {
		case header.TCPProtocolNumber, header.UDPProtocolNumber:
			return true
		case header.ICMPv4ProtocolNumber:
			return ip.DestinationAddress().As4() == Gateway.As4()
		}
	}
	return false
}

//go:build unix

package ext4

// Folder returns what a folder with these names looks like on a disk.
func Folder(names []string) []byte {
	t := newTable(nil)
	t.add(node{mode: modeDir})
	for i, name := range names {
		t.nodes[0].entries = append(t.nodes[0].entries, entry{name, uint32(100 + i), kindFile})
	}
	t.place()
	return t.folder(0)
}

// EncodeAttrs returns the block that holds extended attributes.
var EncodeAttrs = encodeAttrs

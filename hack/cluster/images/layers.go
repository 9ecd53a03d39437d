package images

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is a file of a layer, or a folder where its path ends with a slash.
type entry struct {
	path    string
	mode    fs.FileMode
	link    string
	content []byte
}

func newLayer(archive []byte) (v1.Layer, error) {
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive)), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// packFiles packs the files that a Spec names, and a /tmp, because programs expect one.
func packFiles(files map[string]string) ([]byte, error) {
	entries := []entry{{path: "/tmp/", mode: 0o1777}}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(path, "/") {
			entries = append(entries, entry{path: path, mode: 0o1777})
			continue
		}
		entries = append(entries, entry{path: path, mode: 0o644, content: []byte(files[path])})
	}
	return pack(entries...)
}

// packTree packs the content of a folder on this machine.
func packTree(root string) ([]byte, error) {
	var entries []entry
	err := filepath.WalkDir(root, func(path string, file fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := file.Info()
		if err != nil {
			return err
		}
		e := entry{path: strings.TrimPrefix(path, root), mode: info.Mode().Perm()}
		switch {
		case file.IsDir():
			e.path += "/"
		case file.Type() == fs.ModeSymlink:
			e.link, err = os.Readlink(path)
		default:
			e.content, err = os.ReadFile(path)
		}
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return pack(entries...)
}

// pack writes a tar without times or owners, so that the same files always have the same digest.
// Folders that no entry names are made.
func pack(entries ...entry) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	made := map[string]bool{}
	for _, e := range entries {
		for _, parent := range parents(e.path) {
			if made[parent] {
				continue
			}
			made[parent] = true
			if err := archive.WriteHeader(&tar.Header{Name: parent, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				return nil, err
			}
		}
		if err := e.write(archive); err != nil {
			return nil, err
		}
		made[archived(e.path)] = true
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// parents are the folders above a path, the outermost first.
func parents(path string) []string {
	var all []string
	file := strings.TrimSuffix(archived(path), "/")
	for i, c := range file {
		if c == '/' {
			all = append(all, file[:i+1])
		}
	}
	return all
}

// archived is a path as an archive has it, from the image's root.
func archived(path string) string { return strings.TrimPrefix(path, "/") }

func (e entry) write(archive *tar.Writer) error {
	header := tar.Header{Name: archived(e.path), Typeflag: tar.TypeReg, Mode: int64(e.mode), Size: int64(len(e.content))}
	switch {
	case strings.HasSuffix(e.path, "/"):
		header.Typeflag = tar.TypeDir
	case e.link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, e.link
	}
	if err := archive.WriteHeader(&header); err != nil {
		return err
	}
	_, err := archive.Write(e.content)
	return err
}

// Package pages_test holds what the Markdown of the tree refers to against what there is.
package pages_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	code    = regexp.MustCompile("(?ms)^ *```.*?^ *```|`[^`\n]*`")
	anchor  = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// slug is the anchor that a hub gives a heading.
func slug(title string) string {
	title = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(title, "$1")
	return strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

// anchors are those of a page. A heading that is there again has a number behind it.
func anchors(page string) []string {
	var found []string
	fences := regexp.MustCompile("(?ms)^ *```.*?^ *```")
	for _, match := range heading.FindAllStringSubmatch(fences.ReplaceAllString(page, ""), -1) {
		name := slug(match[1])
		for n, base := 1, name; slices.Contains(found, name); n++ {
			name = base + "-" + string(rune('0'+n))
		}
		found = append(found, name)
	}
	for _, match := range anchor.FindAllStringSubmatch(page, -1) {
		found = append(found, match[1])
	}
	return found
}

func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if path != root && (entry.Name() == "bin" || strings.HasPrefix(entry.Name(), ".")) {
				return fs.SkipDir
			}
			return err
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		found[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestLinksLeadSomewhere(t *testing.T) {
	texts, followed := pages(t), 0
	for path, text := range texts {
		for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			if strings.Contains(match[1], "://") || strings.HasPrefix(match[1], "mailto:") {
				continue
			}
			followed++
			file, fragment, _ := strings.Cut(match[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", path, match[1])
			} else if fragment != "" && !slices.Contains(anchors(texts[target]), fragment) {
				t.Errorf("%s: %s has no heading for the link %s", path, target, match[1])
			}
		}
	}
	if len(texts) < 20 || followed < 50 {
		t.Errorf("%d pages with %d links only: the test looks in the wrong place", len(texts), followed)
	}
}

func TestSlug(t *testing.T) {
	for title, want := range map[string]string{
		"Before the app, as long as the app": "before-the-app-as-long-as-the-app",
		"It stands still: why?":              "it-stands-still-why",
		"`Ready` and [links](x.md)":          "ready-and-links",
	} {
		if got := slug(title); got != want {
			t.Errorf("the anchor of %q is %q, want %q", title, got, want)
		}
	}
}

package admission

import (
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/internal/revision"
)

// maxDecoded is how many revisions are kept before they are decoded anew, so that those that are gone don't fill the memory.
const maxDecoded = 100

// decoded remembers revisions as they are stored. The zero value is empty; several goroutines may use it. Nobody may change what
// it returns.
type decoded struct {
	mu        sync.Mutex
	revisions map[stored]*revision.Revision
}

type stored struct {
	uid             types.UID
	resourceVersion string
}

func (d *decoded) of(object *appsv1.ControllerRevision) (*revision.Revision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := stored{object.UID, object.ResourceVersion}
	if r, is := d.revisions[key]; is {
		return r, nil
	}
	r, err := revision.Decode(object)
	if err != nil {
		return nil, err
	}
	if d.revisions == nil || len(d.revisions) >= maxDecoded {
		d.revisions = map[stored]*revision.Revision{}
	}
	d.revisions[key] = &r
	return &r, nil
}

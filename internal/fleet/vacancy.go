package fleet

import "slices"

// Vacancy is the place of a pod that its owner wants and does not have.
type Vacancy struct {
	Workload Workload
	// Owner is the UID of the owner.
	Owner string
	// Node is where the pod was, where that is known.
	Node Node
	// Leaving: the pod is still there, and is being deleted.
	Leaving bool
}

// lacks says whether the owner says that it lacks more than the open places, and those pods don't prove it wrong.
func (o *Owner) lacks(has, open int32) bool {
	return o.UID != "" && open < min(o.Lacks, o.Wanted-has)
}

// Vacancies are the places in which a pod is missing, given the pods of the fleet and those of
// them that are being deleted. A pod that was evicted is seen no more, and its owner's
// status may not show that yet: without them nothing would count it until another one has
// been made. An owner may say late that it lacks one, and is not believed against pods that are there.
// Of several that are being deleted, those that were first have been replaced first.
func Vacancies(members, leaving []Member) []Vacancy {
	has, open := byOwner(members), map[string]int32{}
	leaving = slices.SortedFunc(slices.Values(leaving), lastDeleted)
	var vacancies []Vacancy
	for i := range leaving {
		pod := &leaving[i]
		owner := &pod.Owner
		if owner.UID == "" || (owner.Wanted >= 0 && has[owner.UID]+open[owner.UID] >= owner.Wanted) {
			continue
		}
		open[owner.UID]++
		vacancies = append(vacancies, Vacancy{Workload: pod.Workload, Owner: owner.UID, Node: pod.Node, Leaving: true})
	}
	for _, pods := range [][]Member{members, leaving} {
		for i := range pods {
			owner := &pods[i].Owner
			for owner.lacks(has[owner.UID], open[owner.UID]) {
				open[owner.UID]++
				vacancies = append(vacancies, Vacancy{Workload: pods[i].Workload, Owner: owner.UID})
			}
		}
	}
	return vacancies
}

// byOwner counts the pods of each owner. Those of one mostly come together.
func byOwner(members []Member) map[string]int32 {
	count := map[string]int32{}
	for i := 0; i < len(members); {
		first, owner := i, members[i].Owner.UID
		for i < len(members) && members[i].Owner.UID == owner {
			i++
		}
		count[owner] += int32(i - first)
	}
	return count
}

// lastDeleted orders pods by when they were deleted, the last first.
func lastDeleted(a, b Member) int {
	x, y := a.Pod.DeletionTimestamp, b.Pod.DeletionTimestamp
	if x != nil && y != nil && !x.Equal(y) {
		return y.Compare(x.Time)
	}
	return CompareNames(a.Pod, b.Pod)
}

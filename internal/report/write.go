package report

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidecar-dev/sidecar-operator/api/v1alpha1"
)

// badness orders states, the best first.
var badness = []v1alpha1.ReportState{
	v1alpha1.ReportCurrent, v1alpha1.ReportWaiting, v1alpha1.ReportUpdating,
	v1alpha1.ReportStale, v1alpha1.ReportMissing, v1alpha1.ReportFailed,
}

// Make is the report that the entries of a workload come to. Before is the one that is there, nil where
// there is none: what did not change has been so since then.
func Make(key types.NamespacedName, entries []Entry, before *v1alpha1.SidecarReport, now time.Time) *v1alpha1.SidecarReport {
	owner := entries[0].Workload
	report := &v1alpha1.SidecarReport{}
	if before != nil {
		report = before.DeepCopy()
	}
	report.Namespace, report.Name = key.Namespace, key.Name
	report.OwnerReferences = []metav1.OwnerReference{owner}
	report.Workload = v1alpha1.WorkloadReference{APIVersion: owner.APIVersion, Kind: owner.Kind, Name: owner.Name}
	report.Policies = nil
	for i := range entries {
		report.Policies = append(report.Policies, since(entries[i].Report, before, now))
	}
	slices.SortFunc(report.Policies, func(a, b v1alpha1.ReportedPolicy) int { return strings.Compare(a.Policy, b.Policy) })
	summarize(report)
	report.WrittenAt = stamp(now)
	return report
}

// stamp is a time as the API keeps it: to the second.
func stamp(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

// since says since when a policy's part is as it is.
func since(part v1alpha1.ReportedPolicy, before *v1alpha1.SidecarReport, now time.Time) v1alpha1.ReportedPolicy {
	part.Since = stamp(now)
	if was := policyOf(before, part.Policy); was != nil && was.State == part.State && was.Reason == part.Reason {
		part.Since = was.Since
	}
	return part
}

func policyOf(report *v1alpha1.SidecarReport, policy string) *v1alpha1.ReportedPolicy {
	if report == nil {
		return nil
	}
	for i := range report.Policies {
		if report.Policies[i].Policy == policy {
			return &report.Policies[i]
		}
	}
	return nil
}

// summarize writes the worst of the policies to the top.
func summarize(report *v1alpha1.SidecarReport) {
	worst := &report.Policies[0]
	report.Pods = worst.Pods
	for i := range report.Policies {
		part := &report.Policies[i]
		if slices.Index(badness, part.State) > slices.Index(badness, worst.State) {
			worst = part
		}
		p := &report.Pods
		p.Selected, p.Failed, p.Missing = max(p.Selected, part.Pods.Selected), max(p.Failed, part.Pods.Failed), max(p.Missing, part.Pods.Missing)
		p.Updated, p.Ready = min(p.Updated, part.Pods.Updated), min(p.Ready, part.Pods.Ready)
	}
	report.State, report.Since, report.Reason, report.Message = worst.State, worst.Since, worst.Reason, worst.Message
}

// The times for which writes of a report are gathered. A roll-out over a workload costs a write when it is to come, when
// it begins, once in the middle, when it ends, and when the last pods are ready: five, however long it takes.
const (
	// betweenStates lies at least between two writes, whatever changed.
	betweenStates = 5 * time.Second
	// betweenNumbers lies between writes that change only numbers, while nothing is rolled out.
	betweenNumbers = 30 * time.Second
	// lastPods is for the numbers of pods that are made ready or recreated last, after a roll-out has ended.
	lastPods = 2 * time.Minute
	// onTheWay is after how long a report says how far a roll-out has come that is not halfway by then.
	onTheWay = time.Hour
	// firstOfShortLived is how old a bare pod or the pods of a Job are before they get a report: most are gone by then.
	firstOfShortLived = 30 * time.Second
)

// Wait is how long to wait before a report is written; zero is now. Due is false where it says what is written, or what
// changed will be said by a later write. Entries are those that the report after was made of.
func Wait(before, after *v1alpha1.SidecarReport, entries []Entry, now time.Time) (wait time.Duration, due bool) {
	if before == nil {
		return untilFirst(after.Workload.Kind, entries, now), true
	}
	if same(before, after) {
		return 0, false
	}
	gap := betweenNumbers
	switch {
	case !sameStates(before, after):
		gap = betweenStates
	case slices.ContainsFunc(entries, func(e Entry) bool { return e.Updating }):
		if gap, due = untilMiddle(before, entries); !due {
			return 0, false
		}
	case hasEnded(before):
		gap = lastPods
	}
	return max(0, before.WrittenAt.Add(gap).Sub(now)), true
}

// untilMiddle is how long after the write before a report says how far roll-outs have come: once for each, and never
// where that is said. It goes by the share of the pods, since the time that they take has no end.
func untilMiddle(before *v1alpha1.SidecarReport, entries []Entry) (gap time.Duration, due bool) {
	for i := range entries {
		part := &entries[i].Report
		was := policyOf(before, part.Policy)
		switch {
		case !entries[i].Updating, was.Pods.Updated > 0, part.Pods.Updated == 0:
		case 2*part.Pods.Updated >= part.Pods.Selected:
			return betweenStates, true
		default:
			gap, due = onTheWay, true
		}
	}
	return gap, due
}

// hasEnded says whether the report's last write said that a roll-out has ended. One that is new follows the pods of a
// workload that is new, too.
func hasEnded(report *v1alpha1.SidecarReport) bool {
	return report.State == v1alpha1.ReportCurrent && report.WrittenAt.Equal(&report.Since) &&
		report.Since.Sub(report.CreationTimestamp.Time) > betweenNumbers
}

func untilFirst(kind string, entries []Entry, now time.Time) time.Duration {
	if kind != "Pod" && kind != "Job" {
		return 0
	}
	first := slices.MinFunc(entries, func(a, b Entry) int { return a.Born.Compare(b.Born) })
	return max(0, first.Born.Add(firstOfShortLived).Sub(now))
}

// sameStates says whether nothing but numbers changed.
func sameStates(a, b *v1alpha1.SidecarReport) bool {
	return slices.EqualFunc(a.Policies, b.Policies, func(a, b v1alpha1.ReportedPolicy) bool {
		return a.Policy == b.Policy && a.State == b.State && a.Reason == b.Reason && a.Revision == b.Revision
	}) && slices.EqualFunc(a.OwnerReferences, b.OwnerReferences, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID })
}

// same says whether two reports say the same, whenever they were written.
func same(a, b *v1alpha1.SidecarReport) bool {
	return sameStates(a, b) && a.State == b.State && a.Workload == b.Workload && a.Pods == b.Pods && a.Reason == b.Reason && a.Message == b.Message &&
		a.Since.Equal(&b.Since) && slices.EqualFunc(a.Policies, b.Policies, sameParts)
}

func sameParts(a, b v1alpha1.ReportedPolicy) bool {
	return a.Policy == b.Policy && a.State == b.State && a.Reason == b.Reason && a.Message == b.Message &&
		a.Revision == b.Revision && a.Pods == b.Pods && a.LastChangeTime.Equal(b.LastChangeTime) &&
		slices.EqualFunc(a.Sidecars, b.Sidecars, func(a, b v1alpha1.ReportedSidecar) bool {
			return a.Name == b.Name && a.Wanted == b.Wanted && slices.Equal(a.Running, b.Running)
		})
}

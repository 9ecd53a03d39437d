package prometheus_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheusv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"sigs.k8s.io/yaml"

	"github.com/sidecar-dev/sidecar-operator/test/prometheus"
)

// What people see of the operator in Prometheus is files, which nothing compiles.

const root = "../.."

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `json:"alert"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

func readRules(t *testing.T) (all rules, raw []byte) {
	t.Helper()
	var object struct {
		Spec json.RawMessage `json:"spec"`
	}
	parse(t, read(t, "config/prometheus/rules.yaml"), &object)
	parse(t, object.Spec, &all)
	if len(all.Groups) != 1 || len(all.Groups[0].Rules) == 0 {
		t.Fatal("no rules")
	}
	return all, object.Spec
}

func TestAlertsFireAndAreQuiet(t *testing.T) {
	tool, err := prometheus.Promtool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, spec := readRules(t)
	dir := t.TempDir()
	cases := read(t, "config/prometheus/rules_test.yaml")
	for name, content := range map[string][]byte{"rules.yaml": spec, "rules_test.yaml": cases} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		command := exec.CommandContext(t.Context(), tool, args...)
		command.Dir = dir
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, rule := range all.Groups[0].Rules {
		for _, outcome := range []string{" fires", " is quiet"} {
			if !strings.Contains(string(cases), "name: "+rule.Alert+outcome) {
				t.Errorf("rules_test.yaml has no case %q", rule.Alert+outcome)
			}
		}
	}
}

func TestEveryAlertHasASectionInTheRunbook(t *testing.T) {
	all, _ := readRules(t)
	runbook := string(read(t, "docs/runbook.md"))
	for _, rule := range all.Groups[0].Rules {
		if !strings.Contains(runbook, "\n## "+rule.Alert+"\n") {
			t.Errorf("docs/runbook.md has no section %s", rule.Alert)
		}
		if url := rule.Annotations["runbook_url"]; !strings.HasSuffix(url, "/docs/runbook.md#"+strings.ToLower(rule.Alert)) {
			t.Errorf("the runbook_url of %s is %s", rule.Alert, url)
		}
		if rule.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", rule.Alert)
		}
	}
}

var (
	ours     = regexp.MustCompile(`sidecar_operator_[a-z_]+`)
	declared = regexp.MustCompile(`Name:\s+"(sidecar_operator_[a-z_]+)"`)
)

func TestFilesNameMetricsThatThereAre(t *testing.T) {
	var names []string
	for _, match := range declared.FindAllStringSubmatch(string(read(t, "internal/metrics/metrics.go")), -1) {
		names = append(names, match[1])
	}
	if len(names) < 8 {
		t.Fatalf("found the metrics %v only: the test looks in the wrong place", names)
	}
	for _, file := range []string{"config/prometheus/rules.yaml", "config/prometheus/rules_test.yaml", "config/grafana/dashboard.json", "docs/metrics.md"} {
		for _, name := range ours.FindAllString(string(read(t, file)), -1) {
			if !slices.Contains(names, name) && !slices.Contains(names, strings.TrimSuffix(name, "_bucket")) {
				t.Errorf("%s names %s, which the operator does not have", file, name)
			}
		}
	}
	described := string(read(t, "docs/metrics.md"))
	for _, name := range names {
		if !strings.Contains(described, "| `"+name+"` |") {
			t.Errorf("docs/metrics.md does not describe %s", name)
		}
	}
}

func TestQueriesOfTheDashboardAreUnderstood(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	parse(t, read(t, "config/grafana/dashboard.json"), &dashboard)
	server, err := prometheus.Start(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := api.NewClient(api.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$policy", ".*", "$__rate_interval", "5m")
	asked := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			asked++
			if _, _, err := prometheusv1.NewAPI(client).Query(t.Context(), variables.Replace(target.Expr), time.Time{}); err != nil {
				t.Errorf("panel %q: %s: %v", panel.Title, target.Expr, err)
			}
		}
	}
	if asked < 15 {
		t.Errorf("the dashboard has %d queries only", asked)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func parse(t *testing.T, content []byte, into any) {
	t.Helper()
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

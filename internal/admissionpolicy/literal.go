package admissionpolicy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxNumber is the biggest number that the API server carries from CEL into JSON as a number.
const maxNumber = 1<<53 - 1

// quote writes a text as CEL.
func quote(text string) string { return strconv.Quote(text) }

// list writes texts as a list in CEL.
func list(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = quote(text)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// literal writes a value as CEL, field by field as it is in JSON.
func literal(value any) (string, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var generic any
	if err := decoder.Decode(&generic); err != nil {
		return "", err
	}
	var w literalWriter
	w.write(generic)
	return w.String(), w.err
}

type literalWriter struct {
	strings.Builder
	err error
}

func (w *literalWriter) write(value any) {
	switch v := value.(type) {
	case string:
		w.WriteString(quote(v))
	case bool:
		w.WriteString(strconv.FormatBool(v))
	case json.Number:
		w.number(v)
	case []any:
		w.WriteString("[")
		for i, item := range v {
			w.element(i, item)
		}
		w.WriteString("]")
	case map[string]any:
		w.WriteString("{")
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				w.WriteString(", ")
			}
			w.WriteString(quote(key) + ": ")
			w.dynamic(v[key])
		}
		w.WriteString("}")
	default: // encoding/json knows no more than these and null
		w.WriteString("null")
	}
}

func (w *literalWriter) element(i int, item any) {
	if i > 0 {
		w.WriteString(", ")
	}
	w.dynamic(item)
}

// dynamic hides the type of a value: the API server wants all values of a map or a list to be of one type.
func (w *literalWriter) dynamic(value any) {
	w.WriteString("dyn(")
	w.write(value)
	w.WriteString(")")
}

func (w *literalWriter) number(n json.Number) {
	whole, err := n.Int64()
	if err != nil || whole > maxNumber || whole < -maxNumber {
		w.err = fmt.Errorf("the number %s can't be carried by an AdmissionPolicy: write a whole number up to %d", n, int64(maxNumber))
	}
	w.WriteString(n.String())
}

// matches writes that labels, an expression, match a selector. Nil matches everything; one that
// can't be read matches nothing.
func matches(selector *metav1.LabelSelector, labels string) string {
	if selector == nil {
		return "true"
	}
	if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
		return "false"
	}
	var terms []string
	for _, key := range slices.Sorted(maps.Keys(selector.MatchLabels)) {
		terms = append(terms, requirement(labels, metav1.LabelSelectorRequirement{
			Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{selector.MatchLabels[key]}}))
	}
	for _, r := range selector.MatchExpressions {
		terms = append(terms, requirement(labels, r))
	}
	return all(terms...)
}

func requirement(labels string, r metav1.LabelSelectorRequirement) string {
	has := quote(r.Key) + " in " + labels
	among := labels + "[" + quote(r.Key) + "] in " + list(r.Values)
	switch r.Operator {
	case metav1.LabelSelectorOpIn:
		return all(has, among)
	case metav1.LabelSelectorOpNotIn:
		return "!" + all(has, among)
	case metav1.LabelSelectorOpExists:
		return "(" + has + ")"
	}
	return "!(" + has + ")"
}

// all writes that all terms hold; one writes that at least one does.
func all(terms ...string) string { return join(terms, " && ", "true") }
func one(terms ...string) string { return join(terms, " || ", "false") }

func join(terms []string, operator, none string) string {
	if len(terms) == 0 {
		return none
	}
	return "(" + strings.Join(terms, operator) + ")"
}

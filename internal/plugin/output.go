package plugin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// The formats of -o.
const (
	formatText = ""
	formatWide = "wide"
	formatJSON = "json"
	formatYAML = "yaml"
)

// format is the flag -o of a command.
type format struct{ value string }

// formats are those of every command. People type -o wide everywhere, also where there is nothing more to say.
var formats = []string{formatJSON, formatYAML, formatWide}

// addFormat gives a command the flag -o.
func addFormat(command *cobra.Command) *format {
	f := &format{}
	command.Flags().StringVarP(&f.value, "output", "o", formatText, "How it is written: "+strings.Join(formats, ", ")+". For people by default.")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return f
}

func (f *format) check() error {
	if f.value != formatText && !slices.Contains(formats, f.value) {
		return fmt.Errorf("-o %s is not known here: write one of %s", f.value, strings.Join(formats, ", "))
	}
	return nil
}

func (f *format) wide() bool { return f.value == formatWide }

// forPeople says whether the text is asked for.
func (f *format) forPeople() bool { return f.value == formatText || f.value == formatWide }

// write writes a value for programs, or the text for people.
func (a *app) write(f *format, value any, text func() string) error {
	var data []byte
	var err error
	switch f.value {
	case formatJSON:
		data, err = json.MarshalIndent(value, "", "  ")
		data = append(data, '\n')
	case formatYAML:
		data, err = yaml.Marshal(value)
	default:
		data = []byte(text())
	}
	if err != nil {
		return err
	}
	_, err = a.Out.Write(data)
	return err
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// jsonSchema is the version of what --json prints: keys come in without a new one,
// none changes its meaning.
const jsonSchema = 1

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print one JSON object a line"}
}

// writeJSON writes an object as one line, with the schema's version as its first
// key. What is not UTF-8 in a name comes as U+FFFD.
func writeJSON(out io.Writer, object any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(object); err != nil {
		return err
	}
	line := fmt.Appendf(nil, `{"schema":%d,`, jsonSchema)
	_, err := out.Write(append(line, b.Bytes()[1:]...))
	return err
}

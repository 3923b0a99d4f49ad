package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// tomlFile is where the keys of a file are that was decoded: serve's configuration, or what
// save has written.
type tomlFile struct {
	name  string
	lines map[string]int // of keys, as listen.0.cid.3.as
}

// at is where a key is in the file, or what it is in.
func (f *tomlFile) at(key string) string {
	if line, ok := f.lines[key]; ok {
		return f.name + ":" + strconv.Itoa(line)
	}
	if i := strings.LastIndexByte(key, '.'); i > 0 {
		return f.at(key[:i])
	}
	return f.name
}

// keyError is about a key that is not known or has a value of another type.
type keyError struct {
	key  []string
	text string
}

func (e *keyError) Error() string { return e.text }

// decodeTOML decodes a file of which every key is known. Its errors name the line.
func decodeTOML(name string, b []byte, into any) (tomlFile, error) {
	if err := tomlError(name, toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(into), into); err != nil {
		return tomlFile{}, err
	}
	return tomlFile{name, keyLines(b)}, nil
}

// tomlError is what is said of an error of the decoder.
func tomlError(name string, err error, into any) error {
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, _ := unknown.Errors[0].Position()
		key := unknown.Errors[0].Key()
		return &keyError{key, fmt.Sprintf("%s:%d: unknown key %q", name, line, strings.Join(key, "."))}
	case errors.As(err, &bad):
		line, _ := bad.Position()
		key, text := strings.Join(bad.Key(), "."), strings.TrimPrefix(err.Error(), "toml: ")
		switch {
		case key == "":
			return fmt.Errorf("%s:%d: %s", name, line, text)
		case strings.HasPrefix(text, "cannot "): // it names types of ours
			return &keyError{bad.Key(), fmt.Sprintf("%s:%d: %q wants %s", name, line, key, wanted(reflect.TypeOf(into), bad.Key()))}
		}
		return fmt.Errorf("%s:%d: %q: %s", name, line, key, text)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// wanted says what the value of a key has to be.
func wanted(t reflect.Type, key []string) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem(), key)
	case reflect.Slice:
		switch {
		case t.Elem().Kind() == reflect.String:
			return "a list of strings"
		case len(key) > 0:
			return wanted(t.Elem(), key)
		}
		return "tables, each in [[ ]]"
	case reflect.Map:
		if len(key) > 0 {
			return wanted(t.Elem(), key[1:])
		}
		if t.Elem().Kind() == reflect.String {
			return "a table of strings"
		}
		return "a table"
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			if len(key) > 0 && f.Tag.Get("toml") == key[0] {
				return wanted(f.Type, key[1:])
			}
		}
		return "a table"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	}
	return "a number"
}

// keyLines finds the lines of keys in a file that has been decoded.
func keyLines(b []byte) map[string]int {
	lines := make(map[string]int)
	tables := make(map[string]int) // how many of each [[name]] there were
	var p unstable.Parser
	p.Reset(b)
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		key, line := "", 0
		for it := e.Key(); it.Next(); {
			if line == 0 {
				line = p.Shape(it.Node().Raw).Start.Line
			}
			key += "." + string(it.Node().Data)
		}
		switch key = strings.TrimPrefix(key, "."); e.Kind {
		case unstable.ArrayTable:
			key += "." + strconv.Itoa(tables[key])
			tables[key[:strings.LastIndexByte(key, '.')]]++
			prefix = key + "."
		case unstable.Table:
			// One of an array's is of its last element.
			first, rest, _ := strings.Cut(key, ".")
			if n := tables[first]; n > 0 {
				key = fmt.Sprintf("%s.%d.%s", first, n-1, rest)
			}
			prefix = key + "."
		default:
			key = prefix + key
		}
		lines[key] = line
	}
	return lines
}

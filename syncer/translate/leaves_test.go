package translate_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What an attacker writes into a field: a text, a number, a time or yes. None of them
// stands in any object of these tests by itself.
const (
	markText   = "hostile-mark"
	markNumber = 7070707
	markYear   = 2077
)

// leafValues are the values of the types that are not looked into.
var leafValues = map[reflect.Type]reflect.Value{
	reflect.TypeFor[resource.Quantity]():  reflect.ValueOf(resource.MustParse(fmt.Sprint(markNumber))),
	reflect.TypeFor[metav1.Time]():        reflect.ValueOf(metav1.Date(markYear, 1, 1, 0, 0, 0, 0, time.UTC)),
	reflect.TypeFor[metav1.MicroTime]():   reflect.ValueOf(metav1.NewMicroTime(time.Date(markYear, 1, 1, 0, 0, 0, 0, time.UTC))),
	reflect.TypeFor[metav1.FieldsV1]():    reflect.ValueOf(*metav1.NewFieldsV1(`{"` + markText + `":{}}`)),
	reflect.TypeFor[intstr.IntOrString](): reflect.ValueOf(intstr.FromString(markText)),
}

// leaf is a field of an object that holds a value, wherever below it lies.
type leaf struct {
	path string
	// put puts a value there, the mark or none, making what is above.
	put func(root reflect.Value, mark bool)
}

// leaves lists the fields of an object's type: all that there are in the linked API.
func leaves(object reflect.Type) []leaf {
	return leavesOf(object, "", func(root reflect.Value) reflect.Value { return root })
}

func leavesOf(at reflect.Type, path string, to func(reflect.Value) reflect.Value) []leaf {
	if value, ok := leafValues[at]; ok {
		return []leaf{{path, func(root reflect.Value, mark bool) { to(root).Set(either(mark, value)) }}}
	}
	switch at.Kind() {
	case reflect.Pointer:
		return leavesOf(at.Elem(), path, func(root reflect.Value) reflect.Value {
			v := to(root)
			if v.IsNil() {
				v.Set(reflect.New(at.Elem()))
			}
			return v.Elem()
		})
	case reflect.Slice:
		if at.Elem().Kind() == reflect.Uint8 {
			return []leaf{{path, func(root reflect.Value, mark bool) { to(root).Set(either(mark, marked(at))) }}}
		}
		return leavesOf(at.Elem(), path+"[]", func(root reflect.Value) reflect.Value {
			v := to(root)
			if v.Len() == 0 {
				v.Set(reflect.MakeSlice(at, 1, 1))
			}
			return v.Index(0)
		})
	case reflect.Map:
		return []leaf{
			{path + "{key}", func(root reflect.Value, mark bool) { enter(to(root), markText, reflect.Zero(at.Elem()), mark) }},
			{path + "{cpu}", func(root reflect.Value, mark bool) { enter(to(root), "cpu", marked(at.Elem()), mark) }}, // a key that means something
		}
	case reflect.Struct:
		var all []leaf
		for i := range at.NumField() {
			all = append(all, leavesOf(at.Field(i).Type, below(path, at.Field(i)), func(root reflect.Value) reflect.Value { return to(root).Field(i) })...)
		}
		return all
	default:
		return []leaf{{path, func(root reflect.Value, mark bool) { to(root).Set(either(mark, marked(at))) }}}
	}
}

func either(mark bool, value reflect.Value) reflect.Value {
	if mark {
		return value
	}
	return reflect.Zero(value.Type())
}

func below(path string, f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return strings.Trim(path+"."+name, ".")
}

// enter adds an entry to a map, which may be nil, or makes the map alone.
func enter(m reflect.Value, key string, value reflect.Value, mark bool) {
	if m.IsNil() {
		m.Set(reflect.MakeMap(m.Type()))
	}
	if !mark {
		return
	}
	m.SetMapIndex(reflect.ValueOf(key).Convert(m.Type().Key()), value)
}

// marked returns the mark as a value of a type that holds one.
func marked(at reflect.Type) reflect.Value {
	v := reflect.New(at).Elem()
	switch value, ok := leafValues[at]; {
	case ok:
		v.Set(value)
	case at.Kind() == reflect.Slice:
		v.SetBytes([]byte(markText))
	case at.Kind() == reflect.String:
		v.SetString(markText)
	case at.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(markNumber)
	default:
		panic("a field of a type that no test knows: " + at.String())
	}
	return v
}

// flat lists what a tree of objects says, a line for each value, without the places in
// lists.
func flat(t *testing.T, objects ...any) (lines []string) {
	t.Helper()
	for _, o := range objects {
		if reflect.ValueOf(o).IsNil() {
			continue
		}
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(data, &tree); err != nil {
			t.Fatal(err)
		}
		flatten(tree, "", &lines)
	}
	slices.Sort(lines)
	return lines
}

func flatten(tree any, path string, lines *[]string) {
	switch v := tree.(type) {
	case map[string]any:
		for k, child := range v {
			flatten(child, strings.Trim(path+"."+k, "."), lines)
		}
	case []any:
		for _, child := range v {
			flatten(child, path+"[]", lines)
		}
	default:
		*lines = append(*lines, fmt.Sprintf("%s=%v", path, v))
	}
}

// more returns the paths of what is in lines and not in those of the control, each
// once; those whose value is not the mark itself are said to have it within, or to be
// made of it.
func more(lines, control []string) []string {
	left := map[string]int{}
	for _, l := range control {
		left[l]++
	}
	var paths []string
	for _, l := range lines {
		if left[l]--; left[l] >= 0 {
			continue
		}
		path, value, _ := strings.Cut(l, "=")
		switch {
		case strings.Contains(path, markText) || slices.Contains(marks, value):
		case strings.Contains(value, markText) || strings.Contains(value, fmt.Sprint(markNumber)):
			path += " (within)"
		default:
			path += " (made)"
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// marks are the mark in JSON's forms of it.
var marks = []string{markText, fmt.Sprint(markNumber), fmt.Sprint(float64(markNumber)), fmt.Sprintf("%d-01-01T00:00:00Z", markYear),
	fmt.Sprintf("%d-01-01T00:00:00.000000Z", markYear), base64.StdEncoding.EncodeToString([]byte(markText)), "true"}

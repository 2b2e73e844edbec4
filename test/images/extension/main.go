// Command extension is a pod that extends its cluster: an admission webhook at
// /validate, which refuses objects whose names begin with "bad", and an API server
// with the group ext.example.com and no more than discovery and a resource that
// says who asks.
//
//	extension CERT KEY     serves HTTPS on port 8443
//
// It speaks plain JSON, so that the image is small.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

type object = map[string]any

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: extension CERT KEY")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /validate", validate)
	version := object{"groupVersion": "ext.example.com/v1", "version": "v1"}
	reply(mux, "/apis", object{"kind": "APIGroupList", "apiVersion": "v1", "groups": []object{{
		"name": "ext.example.com", "versions": []object{version}, "preferredVersion": version,
	}}})
	reply(mux, "/apis/ext.example.com/v1", object{
		"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "ext.example.com/v1",
		"resources": []object{{"name": "askers", "singularName": "asker", "kind": "Asker", "namespaced": false, "verbs": []string{"get"}}},
	})
	mux.HandleFunc("GET /apis/ext.example.com/v1/askers/{name}", func(w http.ResponseWriter, r *http.Request) {
		write(w, object{
			"kind": "Asker", "apiVersion": "ext.example.com/v1", "metadata": object{"name": r.PathValue("name")},
			"user": r.Header.Get("X-Remote-User"),
		})
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "extension %s\n", r.URL.Path) })
	server := &http.Server{Addr: ":8443", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Print("serving")
	log.Fatal(server.ListenAndServeTLS(os.Args[1], os.Args[2]))
}

func reply(mux *http.ServeMux, path string, answer object) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { write(w, answer) })
}

func write(w http.ResponseWriter, answer object) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		log.Print(err)
	}
}

func validate(w http.ResponseWriter, r *http.Request) {
	var review struct {
		APIVersion, Kind string
		Request          struct{ UID, Name string }
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	write(w, object{"apiVersion": review.APIVersion, "kind": review.Kind, "response": object{
		"uid": review.Request.UID, "allowed": !strings.HasPrefix(review.Request.Name, "bad"),
		"status": object{"message": "the extension says no"},
	}})
}

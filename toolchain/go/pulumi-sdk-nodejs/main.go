// Command pulumi-sdk-nodejs writes the TypeScript SDK of a package, as `pulumi package add` does:
// it reads the package's schema, and writes the files into the folder that it is given. The language
// host for Node.js that can be built here is older than that part of `pulumi package add`.
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	"github.com/pulumi/pulumi/pkg/v3/codegen/nodejs"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

// alone loads no other package: the schema refers to none.
type alone struct{ schema.ReferenceLoader }

func main() {
	var spec schema.PackageSpec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		log.Fatal(err)
	}
	pkg, diagnostics, err := schema.BindSpec(spec, alone{}, schema.ValidationOptions{})
	if err != nil || diagnostics.HasErrors() {
		log.Fatal(err, diagnostics)
	}
	files, err := nodejs.GeneratePackage("pulumi-sdk-nodejs", pkg, nil, nil, true, alone{})
	if err != nil {
		log.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(os.Args[1], name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// A cache of quay.io, with the address at which Talos nodes reach it.
import * as pulumi from "@pulumi/pulumi";
import { caches } from "@pulumi/talos-registry-cache";

const config = new pulumi.Config();
const cache = new caches.RegistryCache("caches", {
    upstreams: { "quay.io": { port: config.requireNumber("port") } },
});

export const mirrors = cache.mirrors;
export const talosctlFlags = cache.talosctlFlags;

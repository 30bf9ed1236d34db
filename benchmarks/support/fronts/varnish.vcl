vcl 4.1;

backend default {
  .host = "127.0.0.1";
  .port = "@CACHE@";
  .first_byte_timeout = @SILENCE@s;
  .between_bytes_timeout = @SILENCE@s;
}

sub vcl_recv {
  if (req.method != "GET" && req.method != "HEAD") { return (pass); }
  if (req.url ~ "/blobs/sha256:" || req.url ~ "/manifests/") {
    unset req.http.Cookie;
    unset req.http.Authorization;
    return (hash);
  }
  return (pass);
}

sub vcl_hash {
  if (req.url ~ "/blobs/") {
    # Layers that repositories share are one object.
    hash_data(regsub(req.url, "^.*/blobs/", ""));
  } else {
    hash_data(req.url);
    hash_data(req.http.Accept);
  }
  return (lookup);
}

sub vcl_backend_response {
  if (beresp.status != 200) {
    if (bereq.is_bgfetch) { return (abandon); }
    set beresp.uncacheable = true;
    set beresp.ttl = 0s;
    set beresp.grace = 0s;
    return (deliver);
  }
  set beresp.do_stream = true;
  set beresp.keep = 0s;
  if (bereq.url ~ "/manifests/") {
    set beresp.ttl = @FRESH@s;
    set beresp.grace = 3650d;
    unset beresp.http.Vary;
  } else {
    # Counted from the first byte: must be longer than the longest fetch. With 0s nobody shares it.
    set beresp.ttl = @BLOBTTL@;
    set beresp.grace = 0s;
  }
  return (deliver);
}

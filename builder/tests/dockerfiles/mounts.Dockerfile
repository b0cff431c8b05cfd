# syntax=docker/dockerfile:1
FROM golang:1.25 AS build
ARG CACHE=/cache
WORKDIR /src
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/go/pkg/mod,sharing=locked \
    --mount=type=cache,target=$CACHE/build,id=go-build,mode=0755,uid=0,gid=0 \
    go build -o /out/app ./cmd/app
RUN --mount=type=secret,id=npmrc,target=/etc/npmrc,required=true --mount=type=secret,id=token,env=TOKEN npm ci
RUN --mount=type=ssh git clone git@example.org:a/b.git
RUN --network=none --mount=type=tmpfs,target=/tmp,size=64m make test

FROM scratch
RUN --mount=from=build,source=/out,dst=/in,ro ["/in/app", "install"]
RUN --mount=type=cache,from=build,src=/out,target=/c,readonly=false <<EOF
#!/bin/sh
ls /c
EOF

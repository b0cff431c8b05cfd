# syntax=docker/dockerfile:1
FROM alpine:3.20
RUN <<EOF
set -e
apk add --no-cache git
echo "$HOME"
EOF
RUN <<-'SCRIPT'
	if true; then
		echo literal $HOME
	fi
	SCRIPT
COPY <<EOF /etc/app.conf
listen = ${PORT:-80}
EOF
COPY <<one <<two /etc/conf.d/
first
one
second
two
CMD ["/bin/sh"]

FROM debian:bookworm-slim
LABEL org.example.title="tools" org.example.vendor='some body'
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN set -eux; \
	apt-get update; \
	# what the build needs
	apt-get install -y --no-install-recommends \
		ca-certificates \
		# and what the tests need
		curl \
	; \
	rm -rf /var/lib/apt/lists/*
RUN curl -fsSL https://example.org/key | sha256sum | grep -q '^e3b0' || exit 1
VOLUME /var/lib/tool /var/log/tool
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=30s --timeout=3s --retries=5 CMD curl -f http://localhost/ || exit 1
ENTRYPOINT exec tool $OPTIONS

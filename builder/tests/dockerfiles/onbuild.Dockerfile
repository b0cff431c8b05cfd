FROM ruby:3.3
MAINTAINER Some Body <some@example.org>
ONBUILD COPY . /usr/src/app
ONBUILD RUN bundle install && \
    rake assets
ONBUILD WORKDIR /usr/src/app
onbuild entrypoint ["rake"]
user app
env PATH /opt/bin:$PATH

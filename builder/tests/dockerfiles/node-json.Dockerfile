FROM node:22-alpine as deps
WORKDIR /app
COPY ["package.json", "package-lock.json", "./"]
RUN ["npm", "ci", "--omit=dev"]
FROM node:22-alpine
COPY --from=deps /app/node_modules /app/node_modules
ADD src/*.js static/ /app/
VOLUME ["/data", "/a b"]
HEALTHCHECK NONE
CMD node server.js

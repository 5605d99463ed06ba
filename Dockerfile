# The version of go.mod; a later patch of it: --build-arg GO_VERSION=...
ARG GO_VERSION=1.26.0

FROM golang:${GO_VERSION}-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# As in the Makefile. Git's directory stays outside, so who builds says what this is.
ARG VERSION=dev
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=${VERSION} -X main.commit=${COMMIT}" \
  -o /stampede ./cmd/stampede

# Not scratch, though the binary is static: a health check is a program inside of the image, here busybox' wget.
FROM alpine:3.24
COPY --from=build /stampede /usr/local/bin/stampede
# By number, so that an orchestrator can tell that it is not root.
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["stampede"]
CMD ["--help"]

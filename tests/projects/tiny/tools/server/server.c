// One thread, one request per connection: what llama-server says over HTTP, without a model behind it.
#define _GNU_SOURCE
#include "common.h"
#include "llama.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LISTENERS = 4, REQUEST_BYTES = 1 << 16 };

static const struct option_row SERVER_ROWS[] = {
    { "-a, --alias", "STRING", "set model name aliases, comma-separated (to be used by API)\n(env: LLAMA_ARG_ALIAS)", "LLAMA_ARG_ALIAS" },
    { "--host", "HOST", "ip address to listen, or bind to an UNIX socket if the address ends\nwith .sock (default: 127.0.0.1)\n(env: LLAMA_ARG_HOST)", "LLAMA_ARG_HOST" },
    { "--port", "PORT", "port to listen (default: 8080)\n(env: LLAMA_ARG_PORT)", "LLAMA_ARG_PORT" },
    { "--api-prefix", "PREFIX", "prefix path the server serves from, without the trailing slash\n(env: LLAMA_ARG_API_PREFIX)", NULL },
    { "--webui, --no-webui, --ui, --no-ui", NULL, "whether to enable the Web UI (default: enabled)\n(env: LLAMA_ARG_UI)", NULL },
    { "--embedding, --embeddings", NULL, "restrict to only support embedding use case\n(env: LLAMA_ARG_EMBEDDINGS)", NULL },
    { "--rerank, --reranking", NULL, "enable reranking endpoint on server\n(env: LLAMA_ARG_RERANKING)", NULL },
    { "--api-key", "KEY", "API key to use for authentication, multiple keys can be provided as a\ncomma-separated list (default: none)\n(env: LLAMA_API_KEY)", "LLAMA_API_KEY" },
    { "--api-key-file", "FNAME", "path to file containing API keys (default: none)", NULL },
    { "-to, --timeout", "N", "server read/write timeout in seconds (default: 600)\n(env: LLAMA_ARG_TIMEOUT)", "LLAMA_ARG_TIMEOUT" },
    { "--metrics", NULL, "enable prometheus compatible metrics endpoint (default: disabled)\n(env: LLAMA_ARG_ENDPOINT_METRICS)", NULL },
    { "--slots, --no-slots", NULL, "expose slots monitoring endpoint (default: enabled)\n(env: LLAMA_ARG_ENDPOINT_SLOTS)", NULL },
    { "--props", NULL, "enable changing global properties via POST /props\n(env: LLAMA_ARG_ENDPOINT_PROPS)", NULL },
    { "--models-dir", "PATH", "directory containing models for the router server (default: disabled)\n(env: LLAMA_ARG_MODELS_DIR)", "LLAMA_ARG_MODELS_DIR" },
    { "--jinja, --no-jinja", NULL, "whether to use jinja template engine for chat (default: enabled)\n(env: LLAMA_ARG_JINJA)", NULL },
    { "--chat-template-file", "JINJA_TEMPLATE_FILE", "set custom jinja chat template file\n(env: LLAMA_ARG_CHAT_TEMPLATE_FILE)", NULL },
    { "-mm, --mmproj", "FILE", "path to a multimodal projector file\n(env: LLAMA_ARG_MMPROJ)", "LLAMA_ARG_MMPROJ" },
    { "--sleep-idle-seconds", "SECONDS", "number of seconds of idleness after which the server will sleep\n(default: -1; -1 = disabled)", NULL },
    { "--no-warmup", NULL, "skip warming up the model with an empty run", NULL },
    { NULL, NULL, NULL, NULL },
};

static const char * host = "127.0.0.1";
static const char * alias = NULL;
static const char * model_file = NULL;
static char api_key[256] = "";
static int port = 8080;
static struct timespec started;
static volatile sig_atomic_t is_stopping = 0;

static void stop(int signal_number) {
    (void) signal_number;
    is_stopping = 1;
}

static void read_key_file(const char * path) {
    FILE * file = fopen(path, "r");
    if (file == NULL || fgets(api_key, sizeof(api_key), file) == NULL) {
        fprintf(stderr, "error while handling argument \"--api-key-file\": error: failed to open file '%s'\n", path);
        exit(1);
    }
    api_key[strcspn(api_key, "\r\n")] = '\0';
    fclose(file);
}

static void take(const char * name, const char * value) {
    if (strcmp(name, "--host") == 0) {
        host = value;
    } else if (strcmp(name, "--port") == 0) {
        port = atoi(value);
    } else if (strcmp(name, "--model") == 0) {
        model_file = value;
    } else if (strcmp(name, "--alias") == 0) {
        alias = value;
    } else if (strcmp(name, "--api-key") == 0) {
        snprintf(api_key, sizeof(api_key), "%s", value);
    } else if (strcmp(name, "--api-key-file") == 0) {
        read_key_file(value);
    }
}

static long milliseconds_since_start(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - started.tv_sec) * 1000 + (now.tv_nsec - started.tv_nsec) / 1000000;
}

static long environment_ms(const char * name, long otherwise) {
    const char * text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static int listen_unix(const char * path) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(path);
    if (bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(listener, 64) != 0) {
        return -1;
    }
    fprintf(stderr, "srv  llama_server: server is listening on unix://%s\n", path);
    return listener;
}

static int listen_tcp(const char * name) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short) port) };
    if (inet_pton(AF_INET, strcmp(name, "localhost") == 0 ? "127.0.0.1" : name, &address.sin_addr) != 1) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    const int yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    socklen_t length = sizeof(address);
    if (bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 || listen(listener, 64) != 0 ||
        getsockname(listener, (struct sockaddr *) &address, &length) != 0) {
        return -1;
    }
    port = ntohs(address.sin_port);
    fprintf(stderr, "srv  llama_server: server is listening on http://%s:%d\n", name, port);
    return listener;
}

static int listen_everywhere(struct pollfd * listeners) {
    int count = 0;
    char names[1024];
    snprintf(names, sizeof(names), "%s", host);
    for (char * name = strtok(names, ","); name && count < MAX_LISTENERS; name = strtok(NULL, ",")) {
        const size_t length = strlen(name);
        const int is_unix = length > 5 && strcmp(name + length - 5, ".sock") == 0;
        listeners[count].fd = is_unix ? listen_unix(name) : listen_tcp(name);
        listeners[count].events = POLLIN;
        if (listeners[count].fd < 0) {
            fprintf(stderr, "srv         start: couldn't bind HTTP server socket, hostname: %s, port: %d: %s\n", name, port, strerror(errno));
            fprintf(stderr, "srv  llama_server: exiting due to HTTP server error\n");
            exit(1);
        }
        count++;
    }
    return count;
}

static void send_text(int connection, const char * text) {
    size_t left = strlen(text);
    while (left > 0) {
        const ssize_t sent = send(connection, text, left, MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        text += sent;
        left -= (size_t) sent;
    }
}

static void reply(int connection, const char * status, const char * body) {
    char head[256];
    snprintf(head, sizeof(head),
        "HTTP/1.1 %s\r\nServer: llama.cpp\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
        status, strlen(body));
    send_text(connection, head);
    send_text(connection, body);
}

static const char * model_name(void) {
    return alias ? alias : model_file ? model_file : "tiny";
}

static void reply_chat(int connection) {
    char body[2048];
    snprintf(body, sizeof(body),
        "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"}}],"
        "\"created\":%ld,\"model\":\"%s\",\"system_fingerprint\":\"b%d-%s\",\"object\":\"chat.completion\","
        "\"usage\":{\"completion_tokens\":8,\"prompt_tokens\":15,\"total_tokens\":23},\"id\":\"chatcmpl-tiny\","
        "\"timings\":{\"cache_n\":0,\"prompt_n\":15,\"prompt_ms\":10.0,\"prompt_per_token_ms\":0.667,\"prompt_per_second\":1500.0,"
        "\"predicted_n\":8,\"predicted_ms\":16.0,\"predicted_per_token_ms\":2.0,\"predicted_per_second\":500.0}}",
        llama_answer(), (long) time(NULL), model_name(), LLAMA_BUILD_NUMBER, LLAMA_COMMIT);
    reply(connection, "200 OK", body);
}

static void send_chunk(int connection, const char * delta, const char * rest) {
    char data[1024];
    char chunk[1100];
    snprintf(data, sizeof(data),
        "data: {\"choices\":[{\"index\":0,\"delta\":%s%s,\"created\":%ld,\"id\":\"chatcmpl-tiny\",\"model\":\"%s\",\"object\":\"chat.completion.chunk\"}\n\n",
        delta, rest, (long) time(NULL), model_name());
    snprintf(chunk, sizeof(chunk), "%zx\r\n%s\r\n", strlen(data), data);
    send_text(connection, chunk);
}

static void stream_chat(int connection) {
    send_text(connection, "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    send_chunk(connection, "{\"role\":\"assistant\",\"content\":null}", ",\"finish_reason\":null}]");
    const char * text = llama_answer();
    while (*text) {
        char delta[128];
        const int length = (int) strcspn(text + 1, " ") + 1;
        snprintf(delta, sizeof(delta), "{\"content\":\"%.*s\"}", length, text);
        send_chunk(connection, delta, ",\"finish_reason\":null}]");
        text += length;
    }
    send_chunk(connection, "{}",
        ",\"finish_reason\":\"stop\"}],\"timings\":{\"prompt_n\":15,\"prompt_per_second\":1500.0,\"predicted_n\":8,\"predicted_ms\":16.0,\"predicted_per_second\":500.0}");
    send_text(connection, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
}

// Reads the head and as much body as Content-Length promises; the buffer is always a string.
static int read_request(int connection, char * request) {
    size_t size = 0;
    size_t wanted = REQUEST_BYTES - 1;
    int is_head_read = 0;
    while (size < wanted) {
        const ssize_t got = recv(connection, request + size, wanted - size, 0);
        if (got <= 0) {
            break;
        }
        size += (size_t) got;
        request[size] = '\0';
        const char * end = strstr(request, "\r\n\r\n");
        if (end && !is_head_read) {
            is_head_read = 1;
            const char * length = strcasestr(request, "\r\ncontent-length:");
            const size_t body = length && length < end ? (size_t) atol(length + 17) : 0;
            const size_t total = (size_t) (end - request) + 4 + body;
            wanted = total < wanted ? total : wanted;
        }
    }
    request[size] = '\0';
    return is_head_read;
}

static int is_allowed(const char * request) {
    char expected[300];
    if (api_key[0] == '\0') {
        return 1;
    }
    snprintf(expected, sizeof(expected), "Bearer %s\r\n", api_key);
    return strstr(request, expected) != NULL;
}

static void answer(int connection, const char * request, int is_loading) {
    char path[256] = "";
    char body[1024];
    sscanf(request, "%*s %255[^ ?]", path);
    if (is_loading) {
        reply(connection, "503 Service Unavailable", "{\"error\":{\"code\":503,\"message\":\"Loading model\",\"type\":\"unavailable_error\"}}");
    } else if (strcmp(path, "/health") == 0 || strcmp(path, "/v1/health") == 0) {
        reply(connection, "200 OK", "{\"status\":\"ok\"}");
    } else if (strcmp(path, "/v1/models") != 0 && strcmp(path, "/models") != 0 && !is_allowed(request)) {
        reply(connection, "401 Unauthorized", "{\"error\":{\"code\":401,\"message\":\"Invalid API Key\",\"type\":\"authentication_error\"}}");
    } else if (strcmp(path, "/v1/models") == 0 || strcmp(path, "/models") == 0) {
        snprintf(body, sizeof(body), "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"owned_by\":\"llamacpp\",\"meta\":{\"n_ctx_train\":8192}}]}", model_name());
        reply(connection, "200 OK", model_file ? body : "{\"object\":\"list\",\"data\":[]}");
    } else if (strcmp(path, "/props") == 0) {
        snprintf(body, sizeof(body), "{\"default_generation_settings\":{\"n_ctx\":8192},\"total_slots\":4,\"model_path\":\"%s\",\"build_info\":\"b%d-%s\"}",
            model_file ? model_file : "", LLAMA_BUILD_NUMBER, LLAMA_COMMIT);
        reply(connection, "200 OK", body);
    } else if (strcmp(path, "/v1/chat/completions") == 0 && strncmp(request, "POST ", 5) == 0) {
        if (strstr(request, "\"stream\":true") || strstr(request, "\"stream\": true")) {
            stream_chat(connection);
        } else {
            reply_chat(connection);
        }
    } else {
        reply(connection, "404 Not Found", "{\"error\":{\"code\":404,\"message\":\"File Not Found\",\"type\":\"not_found_error\"}}");
    }
}

static void serve_one(int listener, int is_loading) {
    static char request[REQUEST_BYTES];
    const struct timeval limit = { .tv_sec = 1 };
    const int connection = accept(listener, NULL, NULL);
    if (connection < 0) {
        return;
    }
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (read_request(connection, request)) {
        answer(connection, request, is_loading);
    }
    close(connection);
}

static void check_model(void) {
    struct stat status;
    if (stat(model_file, &status) != 0) {
        fprintf(stderr, "gguf_init_from_file: failed to open GGUF file '%s' (%s)\n", model_file, strerror(errno));
        fprintf(stderr, "srv    load_model: failed to load model, '%s'\n", model_file);
        fprintf(stderr, "srv  llama_server: exiting due to model loading error\n");
        exit(1);
    }
}

int llama_server(int argc, char ** argv) {
    struct pollfd listeners[MAX_LISTENERS];
    const struct sigaction action = { .sa_handler = stop };
    clock_gettime(CLOCK_MONOTONIC, &started);
    parse_options(argc, argv, SERVER_ROWS, take);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    const int count = listen_everywhere(listeners);
    const long loading_ms = model_file ? environment_ms("TINY_LOADING_MS", 200) : 0;
    const long crash_ms = environment_ms("TINY_CRASH_AFTER_MS", -1);
    int is_loading = 1;
    fprintf(stderr, "srv  llama_server: loading model\n");
    if (model_file) {
        check_model();
    }
    while (!is_stopping) {
        const long now_ms = milliseconds_since_start();
        if (is_loading && now_ms >= loading_ms) {
            is_loading = 0;
            fprintf(stderr, "srv  llama_server: model loaded\n");
        }
        if (crash_ms >= 0 && now_ms >= crash_ms) {
            fprintf(stderr, "GGML_ASSERT(tiny) failed\n");
            abort();
        }
        if (poll(listeners, (nfds_t) count, is_loading || crash_ms >= 0 ? 10 : 1000) <= 0) {
            continue;
        }
        for (int i = 0; i < count; i++) {
            if (listeners[i].revents & POLLIN) {
                serve_one(listeners[i].fd, is_loading);
            }
        }
    }
    fprintf(stderr, "srv    operator(): operator(): cleaning up before exit...\n");
    return 0;
}

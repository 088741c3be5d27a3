/* Answers requests to a SavedModel with TensorFlow's C API alone: no Python, none of this project's code.
 *
 *     serve SAVED_MODEL
 *
 * prints the port on 127.0.0.1 that it listens on, gives each connection a thread, all of them on one session, and
 * ends with its standard input. Loader and kernels are those of TensorFlow Serving, which puts gRPC in front of them.
 *
 * Numbers are little-endian. A text is its length as uint64, then its bytes.
 *     request   uint32 inputs, uint32 outputs; per input a name (text) and a tensor; per output a name
 *     tensor    uint32 TF_DataType, uint32 rank, int64 sizes; its elements as one text, of strings a text for each
 *     answer    uint32 TF_Code; TF_OK: a tensor per output; else: what was wrong (text)
 * Names are those of the graph, such as serving_default_video:0. After any answer the connection takes the next
 * request; one that is cut short, or passes the limits below, ends its connection and nothing else.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { MAX_TENSORS = 16, MAX_RANK = 16, MAX_NAME = 256, MAX_STRINGS = 1 << 20, MAX_BYTES = 1 << 28 };

static TF_Graph *graph;
static TF_Session *session;

/* All of one request. `status` keeps the first fault; what follows it is still read, so that the next request is found. */
typedef struct {
    TF_Status *status;
    uint32_t num_inputs, num_outputs;
    TF_Output inputs[MAX_TENSORS], outputs[MAX_TENSORS];
    TF_Tensor *given[MAX_TENSORS], *found[MAX_TENSORS];
} Request;

static void refuse(Request *request, const char *name, const char *what) {
    char message[MAX_NAME + 200];
    if (TF_GetCode(request->status) != TF_OK) return;
    snprintf(message, sizeof message, "%s: %s", name, what);
    TF_SetStatus(request->status, TF_INVALID_ARGUMENT, message);
}

static bool get(FILE *in, void *value, size_t size) { return fread(value, 1, size, in) == size; }

/* A text in memory of its own, with a zero behind it; NULL if the stream ends in it or it is longer than `limit`. */
static char *get_text(FILE *in, uint64_t limit, uint64_t *size) {
    if (!get(in, size, sizeof *size) || *size > limit) return NULL;
    char *text = calloc(*size + 1, 1);
    if (text && get(in, text, *size)) return text;
    free(text);
    return NULL;
}

static bool get_endpoint(FILE *in, Request *request, char *name, TF_Output *endpoint) {
    uint64_t size;
    char *text = get_text(in, MAX_NAME - 1, &size);
    if (!text) return false;
    memcpy(name, text, size + 1);
    char *colon = strrchr(text, ':');
    if (colon) *colon = 0;
    *endpoint = (TF_Output){TF_GraphOperationByName(graph, text), colon ? atoi(colon + 1) : 0};
    free(text);
    if (!endpoint->oper || endpoint->index < 0 || endpoint->index >= TF_OperationNumOutputs(endpoint->oper))
        refuse(request, name, "the model has no tensor of that name");
    return true;
}

/* Reads one element after the other into the `count` strings of `tensor`. */
static bool get_strings(FILE *in, TF_Tensor *tensor, int64_t count) {
    TF_TString *strings = TF_TensorData(tensor);
    for (int64_t i = 0; i < count; i++) TF_StringInit(&strings[i]);
    for (int64_t i = 0; i < count; i++) {
        uint64_t size;
        char *text = get_text(in, MAX_BYTES, &size);
        if (!text) return false;
        TF_StringCopy(&strings[i], text, size);
        free(text);
    }
    return true;
}

static bool get_numbers(FILE *in, Request *request, const char *name, TF_Tensor *tensor) {
    uint64_t size;
    char *bytes = get_text(in, MAX_BYTES, &size);
    if (!bytes) return false;
    if (!tensor || size != TF_TensorByteSize(tensor))
        refuse(request, name, "its bytes are not as many as its type and sizes need");
    else
        memcpy(TF_TensorData(tensor), bytes, size);
    free(bytes);
    return true;
}

/* The number of elements; -1 for a negative size or more elements than a request may hold. */
static int64_t count_elements(const int64_t *sizes, uint32_t rank) {
    int64_t count = 1;
    for (uint32_t axis = 0; axis < rank; axis++)
        if (sizes[axis] < 0 || sizes[axis] > MAX_BYTES) return -1;
    for (uint32_t axis = 0; axis < rank; axis++)
        if ((count *= sizes[axis]) > MAX_BYTES) return -1;
    return count;
}

static bool get_tensor(FILE *in, Request *request, const char *name, TF_Tensor **tensor) {
    uint32_t head[2];
    int64_t sizes[MAX_RANK];
    if (!get(in, head, sizeof head) || head[1] > MAX_RANK || !get(in, sizes, head[1] * sizeof *sizes)) return false;
    const int64_t count = count_elements(sizes, head[1]);
    const size_t element = TF_DataTypeSize(head[0]);
    if (head[0] == TF_STRING) {
        if (count < 0 || count > MAX_STRINGS) return false; /* where they end is not known */
        *tensor = TF_AllocateTensor(TF_STRING, sizes, head[1], count * sizeof(TF_TString));
        return *tensor && get_strings(in, *tensor, count);
    }
    if (!element || count < 0 || count > MAX_BYTES / (int64_t)element)
        refuse(request, name, "no tensor has that type and these sizes");
    else
        *tensor = TF_AllocateTensor(head[0], sizes, head[1], count * element);
    return get_numbers(in, request, name, *tensor);
}

static bool get_request(FILE *in, Request *request) {
    uint32_t counts[2];
    char name[MAX_NAME];
    if (!get(in, counts, sizeof counts) || counts[0] > MAX_TENSORS || counts[1] > MAX_TENSORS) return false;
    for (; request->num_inputs < counts[0]; request->num_inputs++) {
        const uint32_t i = request->num_inputs;
        if (!get_endpoint(in, request, name, &request->inputs[i])) return false;
        if (!get_tensor(in, request, name, &request->given[i])) return false;
    }
    for (; request->num_outputs < counts[1]; request->num_outputs++)
        if (!get_endpoint(in, request, name, &request->outputs[request->num_outputs])) return false;
    return true;
}

static void put(FILE *out, const void *value, size_t size) { fwrite(value, 1, size, out); }

static void put_text(FILE *out, const char *text, uint64_t size) {
    put(out, &size, sizeof size);
    put(out, text, size);
}

static void put_tensor(FILE *out, const TF_Tensor *tensor) {
    const uint32_t head[2] = {TF_TensorType(tensor), TF_NumDims(tensor)};
    put(out, head, sizeof head);
    for (uint32_t axis = 0; axis < head[1]; axis++) {
        const int64_t size = TF_Dim(tensor, axis);
        put(out, &size, sizeof size);
    }
    if (head[0] != TF_STRING) {
        put_text(out, TF_TensorData(tensor), TF_TensorByteSize(tensor));
        return;
    }
    const TF_TString *strings = TF_TensorData(tensor);
    for (int64_t i = 0; i < TF_TensorElementCount(tensor); i++)
        put_text(out, TF_StringGetDataPointer(&strings[i]), TF_StringGetSize(&strings[i]));
}

static void answer(FILE *out, Request *request) {
    if (TF_GetCode(request->status) == TF_OK)
        TF_SessionRun(session, NULL, request->inputs, request->given, request->num_inputs, request->outputs,
                      request->found, request->num_outputs, NULL, 0, NULL, request->status);
    const uint32_t code = TF_GetCode(request->status);
    put(out, &code, sizeof code);
    if (code != TF_OK) put_text(out, TF_Message(request->status), strlen(TF_Message(request->status)));
    for (uint32_t i = 0; code == TF_OK && i < request->num_outputs; i++) put_tensor(out, request->found[i]);
    fflush(out);
}

static void clear(Request *request) {
    for (int i = 0; i < MAX_TENSORS; i++) {
        if (request->given[i]) TF_DeleteTensor(request->given[i]);
        if (request->found[i]) TF_DeleteTensor(request->found[i]);
    }
    TF_DeleteStatus(request->status);
}

static void *serve_connection(void *argument) {
    const int connection = (int)(intptr_t)argument;
    FILE *in = fdopen(connection, "rb"), *out = fdopen(dup(connection), "wb");
    for (bool whole = in && out; whole;) {
        Request request = {.status = TF_NewStatus()};
        whole = get_request(in, &request);
        if (whole) answer(out, &request);
        clear(&request);
    }
    if (out) fclose(out);
    if (in) fclose(in);
    return NULL;
}

static void *accept_connections(void *argument) {
    for (;;) {
        pthread_t thread;
        const int connection = accept((int)(intptr_t)argument, NULL, NULL);
        if (connection < 0) continue;
        if (pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)connection)) close(connection);
        else pthread_detach(thread);
    }
    return NULL;
}

/* A socket that listens on a free port of this machine, whose number is put into *port. */
static int listen_here(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        return -1;
    *port = ntohs(address.sin_port);
    return listener;
}

int main(int count, char **arguments) {
    const char *tags[] = {"serve"};
    int port;
    if (count != 2) {
        fprintf(stderr, "serve: expected one argument, the folder of a SavedModel\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* a client that has gone shows as a write that fails */
    TF_Status *status = TF_NewStatus();
    TF_SessionOptions *options = TF_NewSessionOptions();
    graph = TF_NewGraph();
    session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
    if (TF_GetCode(status) != TF_OK) {
        fprintf(stderr, "serve: %s: %s\n", arguments[1], TF_Message(status));
        return 1;
    }
    const int listener = listen_here(&port);
    pthread_t thread;
    if (listener < 0 || pthread_create(&thread, NULL, accept_connections, (void *)(intptr_t)listener)) {
        perror("serve");
        return 1;
    }
    printf("%d\n", port);
    fflush(stdout);
    while (getchar() != EOF) {
    }
    _exit(0); /* threads may still be computing: the session is left to the system */
}

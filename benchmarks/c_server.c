/* The load server's world from a second server, written in C, so that nothing is tuned to one server alone.
 *
 *     c_server [--port=0] [--executions=100] [--calls=100] [--evals=1] [--per-day=10] [--latency-ms=0]
 *
 * Listens on loopback, prints its address, and serves until it is killed. Ids, lists and envelopes are those of
 * bench_world.py, with one run test, "Load". Every number that is not an integer has two decimals (8.50). What it does
 * not have, such as the detail of an execution, gets an HTML 404, as from a server that does not know the path.
 * It checks no key, and expects GET requests without bodies, one at a time on each connection.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define METRICS "/sdk/api/v1/simulation/metrics/?"
#define RUN_TESTS "/simulate/run-tests/"
#define RUNS "/sdk/api/v1/simulation/runs/?"
#define STARTS_WITH(text, start) (!strncmp(text, start, sizeof(start) - 1))
#define LOW(bits) (((u64)1 << (bits)) - 1)
enum { CALL_BITS = 16, HEAD_BITS = 48, CONNECTIONS = 1024, REQUEST_BYTES = 8192, PIECE_BYTES = 1024 };
typedef unsigned long long u64;
typedef unsigned __int128 u128;

static long port = 0, executions = 100, calls = 100, evals = 1, per_day = 10, latency_ms = 0;

/* The body of the answer that is being put together. */
static struct { char *bytes; size_t length, room; } body;

/* Adds a piece. In the format, ' stands for ", so that JSON can be read there. */
__attribute__((format(printf, 1, 2))) static void add(const char *format, ...)
{
    char json[PIECE_BYTES];
    size_t length = 0;
    for (; format[length]; length++) json[length] = format[length] == '\'' ? '"' : format[length];
    json[length] = 0;
    if (body.room - body.length < PIECE_BYTES) {
        body.room = 2 * body.room + PIECE_BYTES;
        if (!(body.bytes = realloc(body.bytes, body.room))) abort();
    }
    va_list values;
    va_start(values, format);
    body.length += (size_t)vsnprintf(body.bytes + body.length, PIECE_BYTES, json, values);
    va_end(values);
}

/* Ids: as hard to compress as random ones, and the number can be had back from each. */

struct id { char text[37]; };
static struct id id_of(u64 number)
{
    const u128 other = (u128)0xD1 << 64 | 0xB54A32D192ED03F1;
    u64 head = number * 0x9E3779B97F4B & LOW(HEAD_BITS);
    u128 tail = number * other & (((u128)1 << 72) - 1);
    struct id id;
    snprintf(id.text, sizeof id.text, "%08llx-%04llx-4%03llx-8%03llx-%012llx", head >> 16, head & LOW(16),
             (u64)(tail >> 60), (u64)(tail >> 48) & LOW(12), (u64)tail & LOW(48));
    return id;
}

static struct id execution_id(long execution) { return id_of((u64)execution); }
static struct id call_id(long execution, long call) { return id_of((u64)(execution + 1) << CALL_BITS | (u64)call); }

static u64 number_of(const char *id)
{
    u64 head = 0, rest = 0;
    sscanf(id, "%8llx-%4llx", &head, &rest);
    return (head << 16 | rest) * 0x393DEE219263 & LOW(HEAD_BITS); /* the inverse of the factor above */
}

/* What "result" holds. Each value is a function of the execution's number or of the call's variant. */

static long variant_of(long execution, long call) { return (execution * 31 + call * 7) % 1024; }

static void add_execution(long number)
{
    time_t started_at = 1672531200 /* 2023-01-01 */ + number / per_day * 86400 + number % per_day * 86400 / per_day;
    time_t ended_at = started_at + 3600;
    char started[32], ended[32];
    double latency = 1210 + (double)(number * 7 % 97);
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%S.000000Z", gmtime(&started_at));
    strftime(ended, sizeof ended, "%Y-%m-%dT%H:%M:%S.000000Z", gmtime(&ended_at));
    add("'execution_id':'%s','status':'completed',", execution_id(number).text);
    add("'started_at':'%s','completed_at':'%s',", started, ended);
    add("'total_calls':%ld,'completed_calls':%ld,'failed_calls':0,'metrics':{", calls, calls);
    add("'latency':{'avg_agent_latency_ms':%.2f,'avg_response_time_ms':%.2f,", latency, latency - 409);
    add("'percentiles':{'p50':%.2f,'p95':%.2f,'p99':%.2f}},", latency - 30, latency + 1000.5, latency + 1680.1);
    add("'cost':{'total_duration_seconds':%ld},", 93 * calls);
    add("'conversation':{'avg_user_wpm':141.20,'avg_bot_wpm':163.90,'avg_talk_ratio':1.31},'chat':{},");
    add("'calls':{'total':%ld,'completed':%ld,'failed':0,'pending':0}}", calls, calls);
}

static void add_listed_call(long execution, long call)
{
    static const char *names[] = {"Task Completion", "Tone", "Policy"};
    long variant = variant_of(execution, call), scenario = call % 7;
    add("{'call_execution_id':'%s','status':'completed',", call_id(execution, call).text);
    add("'scenario_id':'5ce0a210-0000-4000-8000-%012lx','scenario_name':'Scenario %ld',", scenario, scenario);
    add("'duration_seconds':%ld,'eval_outputs':{", 60 + variant % 90);
    for (long number = 0; number < evals; number++) {
        int is_good = (variant + number) % 10 < 8;
        add("%s'e7a1%04lx-0000-4000-8000-000000000001':{", number ? "," : "", number);
        add("'name':'%s','status':'completed',", names[number % 3]);
        if (number % 3 == 1)
            add("'output':%.2f,'output_type':'score',", (double)(variant * 37 % 101) / 100);
        else
            add("'output':'%s','output_type':'Pass/Fail',", is_good ? "Passed" : "Failed");
        add("'reason':'The caller%cs request was %sfulfilled ", '\'', is_good ? "" : "not ");
        add("after %ld turns.'}", variant % 23);
    }
    add("}}");
}

static void add_call(long execution, long call)
{
    long variant = variant_of(execution, call), latency = 800 + variant * 13 % 900, interruptions = variant % 3;
    long llm = 1 + variant % 8, tts = 2 + variant % 18;
    double bot_wpm = 120 + (double)(variant * 29 % 6000) / 100, user_wpm = 150 + (double)(variant * 53 % 8000) / 100;
    double talk_ratio = 0.5 + (double)(variant * 11 % 200) / 100, rate = (double)(variant * 17 % 200) / 100;
    add("'call_execution_id':'%s','execution_id':'%s',", call_id(execution, call).text, execution_id(execution).text);
    add("'status':'completed','duration_seconds':%ld,", 60 + variant % 90);
    add("'latency':{'avg_agent_latency_ms':%ld,'response_time_ms':%ld,", latency, latency - 310);
    add("'system_metrics':{'bot_wpm':%.2f,'user_wpm':%.2f,'talk_ratio':%.2f,", bot_wpm, user_wpm, talk_ratio);
    add("'ai_interruption_rate':%.2f,'avg_agent_latency_ms':%ld,", rate, latency);
    add("'ai_interruption_count':%ld,'user_interruption_rate':0.00,'user_interruption_count':0,", interruptions);
    add("'avg_stop_time_after_interruption_ms':null}},");
    add("'cost':{'total_cost_cents':%ld,'stt_cost_cents':4,", llm + tts + 4);
    add("'llm_cost_cents':%ld,'tts_cost_cents':%ld,'breakdown':{'stt':{'cost':0.01},", llm, tts);
    add("'llm':{'cost':%.2f,'promptTokens':%ld}}},", (double)llm / 100, 12685 + variant);
    add("'conversation':{'user_wpm':%.2f,'bot_wpm':%.2f,'talk_ratio':%.2f,", user_wpm, bot_wpm, talk_ratio);
    add("'user_interruption_count':0,'user_interruption_rate':0.00,'ai_interruption_count':%ld,", interruptions);
    add("'ai_interruption_rate':%.2f,'avg_stop_time_after_interruption_ms':null},'chat_metrics':null", rate);
}

/* One page of the execution's calls; of the executions, newest first, if it is -1. */
static void add_page(long execution, long page, long limit)
{
    long count = execution < 0 ? executions : calls, pages = count ? (count + limit - 1) / limit : 1;
    add("'total_pages':%ld,'current_page':%ld,'count':%ld,'results':[", pages, page, count);
    for (long row = (page - 1) * limit; row < page * limit && row < count; row++) {
        add("%s", row % limit ? "," : "");
        if (execution < 0)
            add("{"), add_execution(count - 1 - row), add("}");
        else
            add_listed_call(execution, row);
    }
    add("]");
}

/* The value of a parameter in the target; NULL without it. */
static const char *parameter(const char *target, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = strpbrk(target, "?&"); at; at = strpbrk(at + 1, "?&"))
        if (!strncmp(at + 1, name, length) && at[1 + length] == '=') return at + length + 2;
    return NULL;
}

/* Adds what "result" holds; whether there is anything of this kind. */
static int add_result(const char *target)
{
    const char *call = parameter(target, "call_execution_id"), *execution = parameter(target, "execution_id");
    const char *name = parameter(target, "run_test_name");
    const char *page = parameter(target, "page"), *limit = parameter(target, "limit");
    long number = execution ? (long)number_of(execution) : -1;
    long which = page && atol(page) > 0 ? atol(page) : 1, rows = limit && atol(limit) > 0 ? atol(limit) : 10;
    if (STARTS_WITH(target, METRICS) && call) {
        long of = (long)(number_of(call) >> CALL_BITS) - 1, index = (long)(number_of(call) & LOW(CALL_BITS));
        if (of < 0 || of >= executions || index >= calls) return 0;
        add_call(of, index);
    } else if (STARTS_WITH(target, METRICS) && name && STARTS_WITH(name, "Load")) {
        add_page(-1, which, rows);
    } else if (STARTS_WITH(target, RUNS) && number >= 0 && number < executions) {
        add_execution(number), add(",'eval_results':[],'call_results':{"), add_page(number, which, rows), add("}");
    } else {
        return 0;
    }
    return 1;
}

/* Adds the list of run tests, or what the run test's own list says of its executions; whether there is anything. */
static int add_about(const char *target)
{
    const char *page = parameter(target, "page"), *limit = parameter(target, "limit");
    long which = page ? atol(page) : 1, rows = limit ? atol(limit) : 10, pages = (executions + rows - 1) / rows;
    if (STARTS_WITH(target, RUN_TESTS "?")) {
        add("'total_pages':1,'current_page':1,'count':1,'results':[{'id':'00000000-0000-4000-8000-000000000000',");
        add("'name':'Load','simulate_eval_configs_detail':[]}]");
        return 1;
    }
    if (!STARTS_WITH(target, RUN_TESTS)) return 0;
    add("'total_pages':%ld,'current_page':%ld,'count':%ld,'results':[", pages, which, executions);
    for (long row = (which - 1) * rows; row < which * rows && row < executions; row++) {
        add("%s{'id':'%s','status':'Completed',", row % rows ? "," : "", execution_id(executions - 1 - row).text);
        add("'agent_version':'v1','agent_definition':'Agent','error_reason':null}");
    }
    add("]");
    return 1;
}

/* Answers one request. The client is on this machine and reads what it requested: sending may block. */
static void answer(int socket, const char *target)
{
    char head[256];
    const char *status = "200 OK", *type = "application/json";
    body.length = 0;
    add("{");
    int is_found = add_about(target);
    if (!is_found) {
        add("'status':true,'result':{");
        if ((is_found = add_result(target))) add("}");
    }
    add("}");
    if (!is_found)
        status = "404 Not Found", type = "text/html", body.length = 0, add("<h1>Not Found</h1>");
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type,
             body.length);
    send(socket, head, strlen(head), MSG_NOSIGNAL | MSG_MORE);
    send(socket, body.bytes, body.length, MSG_NOSIGNAL); /* a client that has gone is noticed by the next recv() */
}

/* Connections, each beside what ppoll() waits for on it. The first place is where new ones arrive. */

static struct connection { char request[REQUEST_BYTES]; size_t received; double due; } connections[CONNECTIONS];
static struct pollfd polled[CONNECTIONS];
static int places = 1;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void accept_one(void)
{
    int yes = 1, socket = accept(polled[0].fd, NULL, NULL);
    if (socket < 0) return;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    connections[places].due = 0, connections[places].received = 0;
    polled[places++] = (struct pollfd){socket, POLLIN, 0};
    polled[0].events = places < CONNECTIONS ? POLLIN : 0;
}

/* The last connection takes the place of one that ended. */
static void end(int place)
{
    close(polled[place].fd);
    polled[place] = polled[--places];
    connections[place] = connections[places];
    polled[0].events = POLLIN;
}

/* Receives what has arrived; whether the connection goes on. The answer to a whole request becomes due. */
static int receive(int place, double time)
{
    struct connection *connection = &connections[place];
    ssize_t got = recv(polled[place].fd, connection->request + connection->received,
                       REQUEST_BYTES - 1 - connection->received, 0);
    if (got <= 0) return 0;
    connection->received += (size_t)got;
    connection->request[connection->received] = 0;
    if (strstr(connection->request, "\r\n\r\n")) connection->due = time + (double)latency_ms / 1000;
    return 1;
}

/* Waits for requests, or until the first answer is due. */
static void wait_for_work(void)
{
    double due = now() + 3600;
    for (int place = 1; place < places; place++)
        if (connections[place].due && connections[place].due < due) due = connections[place].due;
    double left = due - now();
    if (left < 0) left = 0; /* else ppoll() fails, and what it told before would be believed again */
    struct timespec timeout = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
    ppoll(polled, (nfds_t)places, &timeout, NULL);
}

static void serve(void)
{
    for (;;) {
        wait_for_work();
        double time = now();
        for (int place = places - 1; place > 0; place--) { /* backwards: the last may move into any place */
            struct connection *connection = &connections[place];
            if (polled[place].revents && !receive(place, time)) {
                end(place);
            } else if (connection->due && connection->due <= time) {
                char *target = connection->request + strlen("GET ");
                target[strcspn(target, " ")] = 0;
                answer(polled[place].fd, target);
                connection->due = 0, connection->received = 0;
            }
        }
        if (polled[0].revents) accept_one();
    }
}

static int is_option(const char *word)
{
    return sscanf(word, "--port=%ld", &port) == 1 || sscanf(word, "--executions=%ld", &executions) == 1 ||
           sscanf(word, "--calls=%ld", &calls) == 1 || sscanf(word, "--evals=%ld", &evals) == 1 ||
           sscanf(word, "--per-day=%ld", &per_day) == 1 || sscanf(word, "--latency-ms=%ld", &latency_ms) == 1;
}

int main(int count, char **words)
{
    for (int word = 1; word < count; word++)
        if (!is_option(words[word])) return fprintf(stderr, "c_server: unknown option %s\n", words[word]), 2;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    address.sin_port = htons((unsigned short)port);
    polled[0] = (struct pollfd){socket(AF_INET, SOCK_STREAM, 0), POLLIN, 0};
    if (bind(polled[0].fd, (struct sockaddr *)&address, sizeof address) || listen(polled[0].fd, 128))
        return perror("c_server"), 1;
    getsockname(polled[0].fd, (struct sockaddr *)&address, &length);
    dprintf(STDOUT_FILENO, "http://127.0.0.1:%d\n", ntohs(address.sin_port));
    serve();
}

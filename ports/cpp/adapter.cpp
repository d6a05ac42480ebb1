// Drives one locker by the adapter protocol, version 1 (specs/protocol.md).
//
//     adapter                 the library
//     adapter --broken NAME   a locker with one mistake (broken.hpp), or with none: the one that they are made in
//     adapter --list-broken   NAME KM-XXX[,KM-YYY], a line for each
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "broken.hpp"
#include "json.hpp"
#include "locker.hpp"

namespace {

constexpr std::size_t max_line = 65'536;

// A command that can't be obeyed. It has an id, so it is answered.
struct BadCommand : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One object to a line, flushed at once; the threads of the calls write too.
void reply(const std::string& id, const std::string& rest) {
    static std::mutex writing;
    const std::string line = "{\"id\": " + id + ", " + rest + "}\n";
    std::lock_guard guard(writing);
    std::fwrite(line.data(), 1, line.size(), stdout);
    std::fflush(stdout);
}

// The end of a call of lock.
void answer(const std::string& id, const std::optional<kmutex::Ticket>& ticket, std::string_view otherwise) {
    if (ticket) reply(id, "\"result\": \"granted\", \"token\": " + std::to_string(*ticket));
    else reply(id, "\"result\": " + quoted(otherwise));
}

void result(const std::string& id, std::string_view word) { reply(id, "\"result\": " + quoted(word)); }

void error(const std::string& id, std::string_view message) {
    reply(id, "\"result\": \"error\", \"message\": " + quoted(message));
}

struct Call {
    std::string key;
    std::stop_source stop;
    std::optional<kmutex::Ticket> ticket;  // once granted
};

// What one reset begins. A call of an older session keeps its own locker, and can disturb no later one.
struct Session {
    std::unique_ptr<Locker> locker;
    std::map<std::string, std::shared_ptr<Call>> calls;  // by the id of the lock; of the reading thread
    std::mutex guard;                                    // of their tickets
};

const std::string* text(const Json& command, const std::string& name) {
    const Json* field = command.find(name);
    return field && field->kind == Json::text ? &field->words : nullptr;
}

// A whole number, as it was written.
const std::string* number(const Json& command, const std::string& name) {
    const Json* field = command.find(name);
    const bool whole = field && field->kind == Json::number &&
                       field->words.find_first_not_of("0123456789") == std::string::npos;
    return whole ? &field->words : nullptr;
}

const std::string& needed(const std::string* field) {
    if (!field) throw BadCommand("no such command, or a field of it is missing or wrong");
    return *field;
}

void on_lock(const std::shared_ptr<Session>& session, const std::string& id, const Json& command) {
    const auto call = std::make_shared<Call>(Call{needed(text(command, "key")), {}, {}});
    const bool is_try = command.find("timeout");
    if (is_try && needed(number(command, "timeout")) != "0") throw BadCommand("a timeout is 0 here");
    session->calls[id] = call;
    if (is_try) {
        // Here, and not in a thread: it does not wait, and stands between the commands before and after it.
        call->ticket = session->locker->try_lock(call->key);
        return answer(id, call->ticket, "timeout");
    }
    const Json* done = command.find("done");
    if (done && done->kind == Json::truth && done->words == "true") call->stop.request_stop();
    std::thread([=] {
        try {
            const auto ticket = session->locker->lock(call->key, call->stop.get_token());
            std::unique_lock guard(session->guard);
            call->ticket = ticket;
            guard.unlock();
            answer(id, ticket, "cancelled");
        } catch (const std::exception& problem) {
            error(id, problem.what());
        }
    }).detach();
}

void on_unlock(Session& session, const std::string& id, const Json& command) {
    const std::string& key = needed(text(command, "key"));
    try {
        if (command.find("lease")) {
            const auto call = session.calls.find(needed(number(command, "lease")));
            if (call == session.calls.end()) return result(id, "unheld");
            std::unique_lock guard(session.guard);
            const auto ticket = call->second->ticket;
            guard.unlock();
            if (!ticket) return result(id, "unheld");
            session.locker->unlock(call->second->key, *ticket);
        } else {
            session.locker->unlock(key);
        }
        result(id, "released");
    } catch (const kmutex::UnheldKeyError&) {
        result(id, "unheld");
    }
}

void on_cancel(Session& session, const std::string& id, const Json& command) {
    const auto call = session.calls.find(needed(number(command, "call")));
    if (call != session.calls.end()) call->second->stop.request_stop();
    result(id, "ok");
}

void on_stat(const Session& session, const std::string& id) {
    std::string keys;
    for (const auto& [key, counts] : session.locker->counts()) {
        keys += (keys.empty() ? "" : ", ") + quoted(key) + ": {\"refs\": " + std::to_string(counts.refs) +
                ", \"waiters\": " + std::to_string(counts.waiters) + "}";
    }
    reply(id, "\"keys\": {" + keys + "}");
}

// Ends the adapter: whoever sent the line can't be answered, since its id is not known.
[[noreturn]] void fail(const std::string& message) {
    std::fprintf(stderr, "adapter: %s\n", message.c_str());
    std::_Exit(2);
}

[[noreturn]] void serve(const std::string& name, const std::function<std::unique_ptr<Locker>()>& build) {
    std::shared_ptr<Session> session;
    std::string line(max_line, '\0');
    while (std::cin.getline(line.data(), max_line), std::cin.gcount() > 0) {
        if (std::cin.fail()) fail("a line of more than " + std::to_string(max_line) + " bytes");
        Json command;
        try {
            const std::size_t length = std::cin.gcount() - (std::cin.eof() ? 0 : 1);
            command = Json::object(std::string_view(line).substr(0, length));
        } catch (const BadJson& problem) {
            fail(std::string("not a command: ") + problem.what());
        }
        const std::string* found = number(command, "id");
        if (!found) fail("a command without an id");
        const std::string& id = *found;
        const std::string* named = text(command, "op");
        const std::string op = named ? *named : "";
        try {
            if (op == "hello" && needed(number(command, "protocol")) == "1") {
                reply(id, "\"protocol\": 1, \"name\": " + quoted(name) +
                              ", \"features\": [\"fifo\", \"cancel\", \"keep\", \"try\", \"lease\", \"unheld\", \"stat\", \"done\", "
                              "\"take\", \"token\"]");
            } else if (op == "reset") {
                session = std::make_shared<Session>();
                session->locker = build();
                result(id, "ok");
            } else if (op == "bye") {
                result(id, "ok");
                break;
            } else if (!session) {
                throw BadCommand("the first commands are hello, with protocol 1, and reset");
            } else if (op == "lock") {
                on_lock(session, id, command);
            } else if (op == "unlock") {
                on_unlock(*session, id, command);
            } else if (op == "cancel") {
                on_cancel(*session, id, command);
            } else if (op == "stat") {
                on_stat(*session, id);
            } else {
                needed(nullptr);
            }
        } catch (const std::exception& problem) {
            error(id, problem.what());
        }
    }
    // At once: calls that still wait are not waited for.
    std::_Exit(0);
}

}  // namespace

int main(int count, char** arguments) {
    const std::vector<std::string> words(arguments + 1, arguments + count);
    if (words.empty()) serve("kmutex-cpp", [] { return std::make_unique<Sound>(); });
    if (words.size() == 1 && words[0] == "--list-broken") {
        for (const Listed& listed : mistakes) std::printf("%s %s\n", listed.name, listed.clauses);
        return 0;
    }
    if (words.size() != 2 || words[0] != "--broken") fail("usage: adapter [--list-broken | --broken NAME]");
    const auto serve_if_meant = [&](const Listed& listed) {
        if (listed.name == words[1])
            serve("kmutex-cpp (broken: " + words[1] + ")",
                  [&] { return std::make_unique<Faulty>(listed.mistake); });
    };
    serve_if_meant(base);
    for (const Listed& listed : mistakes) serve_if_meant(listed);
    fail("no mistake is called " + words[1] + "; --list-broken has them");
}

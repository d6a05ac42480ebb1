// Reads JSON, which the standard library has no reader of.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

struct BadJson : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Json {
    enum Kind { null, truth, number, text, list, fields };
    Kind kind = null;
    std::string words;  // of a number and of true or false: as it was written; of a text: what it says
    std::vector<Json> items;
    std::map<std::string, Json> named;

    // An object and nothing besides. Throws BadJson.
    static Json object(std::string_view text);

    const Json* find(const std::string& name) const {
        const auto field = named.find(name);
        return field == named.end() ? nullptr : &field->second;
    }
};

class JsonReader {
public:
    explicit JsonReader(std::string_view text) : rest_(text) {}

    Json value() {
        // Deeper than anything that is read here; without an end a line could fill the stack.
        if (++depth_ > 50) throw BadJson("too deep");
        Json found = inner();
        --depth_;
        return found;
    }

    bool ended() { return next() == '\0' && rest_.empty(); }

private:
    Json inner() {
        Json found;
        const char first = next();
        if (first == '{') {
            found.kind = Json::fields;
            rest_.remove_prefix(1);
            if (skip('}')) return found;
            do {
                std::string name = text();
                expect(':');
                found.named[name] = value();
            } while (skip(','));
            expect('}');
        } else if (first == '[') {
            found.kind = Json::list;
            rest_.remove_prefix(1);
            if (skip(']')) return found;
            do {
                found.items.push_back(value());
            } while (skip(','));
            expect(']');
        } else if (first == '"') {
            found.kind = Json::text;
            found.words = text();
        } else if (word("true") || word("false")) {
            found.kind = Json::truth;
            found.words = first == 't' ? "true" : "false";
        } else if (!word("null")) {
            found.kind = Json::number;
            found.words = number();
        }
        return found;
    }
    char next() {
        rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size()));
        return rest_.empty() ? '\0' : rest_.front();
    }
    bool skip(char wanted) {
        if (next() != wanted) return false;
        rest_.remove_prefix(1);
        return true;
    }
    void expect(char wanted) {
        if (!skip(wanted)) throw BadJson(std::string("expected ") + wanted);
    }
    bool word(std::string_view wanted) {
        if (!rest_.starts_with(wanted)) return false;
        rest_.remove_prefix(wanted.size());
        return true;
    }
    char take() {
        if (rest_.empty()) throw BadJson("it ends in a text");
        const char first = rest_.front();
        rest_.remove_prefix(1);
        return first;
    }
    std::string number() {
        double value = 0;
        const auto [end, problem] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
        if (problem != std::errc{}) throw BadJson("neither text nor a number");
        const std::string digits(rest_.data(), end);
        rest_.remove_prefix(digits.size());
        return digits;
    }
    unsigned unit() {
        unsigned code = 0;
        if (rest_.size() < 4 || std::from_chars(rest_.data(), rest_.data() + 4, code, 16).ptr != rest_.data() + 4)
            throw BadJson("\\u without four hexadecimal digits");
        rest_.remove_prefix(4);
        return code;
    }
    void escaped(std::string& out) {
        const char kind = take();
        const std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
        if (const std::size_t at = from.find(kind); at != std::string_view::npos) {
            out += to[at];
            return;
        }
        if (kind != 'u') throw BadJson("an unknown escape");
        unsigned code = unit();
        if (code >= 0xD800 && code < 0xDC00 && rest_.starts_with("\\u")) {
            rest_.remove_prefix(2);
            const unsigned low = unit();
            if (low < 0xDC00 || low > 0xDFFF) throw BadJson("half of a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        const auto byte = [&](unsigned value) { out += static_cast<char>(value); };
        if (code < 0x80) {
            byte(code);
        } else if (code < 0x800) {
            byte(0xC0 | code >> 6), byte(0x80 | (code & 0x3F));
        } else if (code < 0x10000) {
            byte(0xE0 | code >> 12), byte(0x80 | (code >> 6 & 0x3F)), byte(0x80 | (code & 0x3F));
        } else {
            byte(0xF0 | code >> 18), byte(0x80 | (code >> 12 & 0x3F)), byte(0x80 | (code >> 6 & 0x3F)),
                byte(0x80 | (code & 0x3F));
        }
    }
    std::string text() {
        expect('"');
        std::string out;
        for (char c = take(); c != '"'; c = take()) {
            if (c == '\\')
                escaped(out);
            else
                out += c;
        }
        return out;
    }

    std::string_view rest_;
    int depth_ = 0;
};

inline Json Json::object(std::string_view text) {
    JsonReader reader(text);
    Json found = reader.value();
    if (found.kind != fields) throw BadJson("not an object");
    if (!reader.ended()) throw BadJson("more than one object");
    return found;
}

inline std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\', out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", c);
            out += escape;
        } else {
            out += c;
        }
    }
    return out += '"';
}

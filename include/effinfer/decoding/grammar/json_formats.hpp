#pragma once
// JSON Schema's `format`: what is generated for each. Every text is valid for its format; for host names, e-mail addresses and URIs
// the commonest part of what their standards allow (no more than four labels, no quoted local parts, no user information).

#include <array>
#include <string>
#include <string_view>
#include <utility>

namespace effinfer::inline v0::decoding::grammar {

/// The pattern of a format, which the whole text matches; empty for one that isn't known here.
/// Source: RFC 3339 section 5.6 (date, time, date-time; no leap seconds), 9562 (uuid), 5321 (email), 1123 (hostname), 2673
/// section 3.2 (ipv4), 4291 section 2.2 (ipv6), 3986 (uri).
inline std::string json_format_pattern(std::string_view format) {
  static constexpr std::string_view digits4 = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})";  // no year 0
  std::string date = "(?:" + std::string(digits4) +
                     "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-"
                     "(?:0[1-9]|1[0-9]|2[0-8]))"
                     "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)";
  std::string time =
      "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
  const std::string octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  std::string ipv4 = "(?:" + octet + "\\.){3}" + octet;
  std::string host = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}(?:\\.[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}){0,3}";
  if (format == "date") return date;
  if (format == "time") return time;
  if (format == "date-time") return date + "T" + time;
  if (format == "uuid") return "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}";
  if (format == "ipv4") return ipv4;
  if (format == "ipv6") {
    const std::string h = "[0-9A-Fa-f]{1,4}", low = "(?:" + h + ":" + h + "|" + ipv4 + ")";
    const auto groups = [&](int n) { return "(?:" + h + ":){" + std::to_string(n) + "}"; };
    const auto before = [&](int n) { return "(?:(?:" + h + ":){0," + std::to_string(n) + "}" + h + ")?"; };
    std::string all = "(?:" + groups(6) + low + "|::" + groups(5) + low;
    for (int n = 0; n < 5; ++n) all += "|" + before(n) + "::" + (n < 4 ? groups(4 - n) + low : low);
    return all + "|" + before(5) + "::" + h + "|" + before(6) + "::)";
  }
  if (format == "hostname") return host;
  if (format == "email") return "[A-Za-z0-9](?:[._+-]?[A-Za-z0-9]){0,30}@" + host;
  if (format == "uri") {
    const std::string letter = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
    return "[a-z][a-z0-9+.-]{0,15}://" + host + "(?::[0-9]{1,5})?(?:/" + letter + "*)*(?:\\?(?:" + letter +
           "|[/?])*)?(?:#(?:" + letter + "|[/?])*)?";
  }
  return {};
}

}  // namespace effinfer::inline v0::decoding::grammar

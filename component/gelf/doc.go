// Package gelf listens for the log messages of components that send GELF
// (Graylog Extended Log Format, 1.1) over TCP, UDP or HTTP.
//
// Senders are hostile: messages, connections and parts of messages that are
// waited for have limits, and what is no message becomes one that says so.
package gelf

/**
 * DNS messages as the DNS proxy needs them: header, question, and the answers that name addresses. Messages pass the proxy as the
 * octets that they are, so nothing here writes records; a refusal is the one message that it makes itself.
 *
 * Labels keep their octets: a dot or a zero inside a label is written `\046` or `\000`, never taken for the end of one, so that
 * what policy judges is what the server is asked. Any octets give a result: never an exception, and a bounded number of steps.
 *
 * @see RFC 1035 §4.1 for the format, §4.1.4 for compression; RFC 6891 for OPT; RFC 8914 for the reason in a refusal
 */

import { readU16, writeU16 } from "../bytes/integers.ts";
import { formatAddress } from "../ip/address.ts";

const TYPE_A = 1;
const TYPE_CNAME = 5;
const TYPE_AAAA = 28;
const TYPE_SIG = 24;
const TYPE_OPT = 41;
const TYPE_TSIG = 250;
const CLASS_IN = 1;

export const RCODE_NO_ERROR = 0;
export const RCODE_FORMAT_ERROR = 1;
export const RCODE_SERVER_FAILURE = 2;
export const RCODE_NAME_ERROR = 3;
export const RCODE_NOT_IMPLEMENTED = 4;
export const RCODE_REFUSED = 5;

const HEADER_BYTES = 12;
/** longest name on the wire, length octets included (RFC 1035 §2.3.4) */
const MAX_NAME_BYTES = 255;
/** One for each label that a name can have. */
const MAX_POINTERS = 126;
/** What an answer may have to come without fragments (DNS flag day 2020): IPv6's least MTU less its headers. */
const MAX_UDP_BYTES = 1232;
const OPTION_EXTENDED_ERROR = 15;
/** "Blocked": refused by the operator's own policy (RFC 8914 §4.16) */
const EXTENDED_ERROR_BLOCKED = 15;

const FLAG_RESPONSE = 0x8000;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;
const FLAG_CHECKING_DISABLED = 0x0010;
const OPCODE_BITS = 0x7800;

/** What is asked. */
export interface DnsQuestion {
  /** presentation format with the dot at its end; case as received */
  readonly name: string;
  readonly type: number;
  readonly class: number;
}

/** The part of a message before its records. */
export interface DnsHead {
  readonly id: number;
  readonly isResponse: boolean;
  /** 0: a plain query */
  readonly opcode: number;
  readonly isTruncated: boolean;
  readonly rcode: number;
  readonly questionCount: number;
  /** the first; absent where there is none or it cannot be read */
  readonly question?: DnsQuestion;
  /** offset one past the first question; of the header's end where there is none */
  readonly questionEnd: number;
}

/** A record of class IN that matters to who has which address. Names as in `DnsQuestion`. */
export interface DnsAnswer {
  readonly name: string;
  readonly ttlSeconds: number;
  /** text of an A or AAAA record */
  readonly address?: string;
  /** target of a CNAME record */
  readonly target?: string;
}

/**
 * Reads header and first question.
 *
 * @returns undefined when there is not even a header
 */
export function readHead(bytes: Uint8Array): DnsHead | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const flags = readU16(bytes, 2);
  const questionCount = readU16(bytes, 4);
  const question = questionCount === 0 ? undefined : readQuestion(bytes, HEADER_BYTES);
  return {
    id: readU16(bytes, 0),
    isResponse: (flags & FLAG_RESPONSE) !== 0,
    opcode: (flags & OPCODE_BITS) >> 11,
    isTruncated: (flags & FLAG_TRUNCATED) !== 0,
    rcode: flags & 15,
    questionCount,
    ...(question === undefined ? {} : { question: question.value }),
    questionEnd: question?.end ?? HEADER_BYTES,
  };
}

/**
 * What is wrong with a query: the code to answer it with, or undefined for one that may be judged and forwarded. One question, no
 * answers, every record within the message, nothing behind the last.
 *
 * @param head as `readHead` reads it from the same bytes
 */
export function faultOfQuery(bytes: Uint8Array, head: DnsHead): number | undefined {
  if (head.opcode !== 0) return RCODE_NOT_IMPLEMENTED;
  if (head.questionCount !== 1 || head.question === undefined) return RCODE_FORMAT_ERROR;
  if (readU16(bytes, 6) !== 0 || readU16(bytes, 8) !== 0) return RCODE_FORMAT_ERROR;
  return endOfRecords(bytes, head.questionEnd, readU16(bytes, 10)) === bytes.length ? undefined : RCODE_FORMAT_ERROR;
}

/**
 * Reads the A, AAAA and CNAME records of the answer section.
 *
 * @param head as `readHead` reads it from the same bytes
 * @returns undefined when a record cannot be read
 */
export function readAnswers(bytes: Uint8Array, head: DnsHead): readonly DnsAnswer[] | undefined {
  if (head.questionCount !== 1 || head.question === undefined) return undefined;
  const answers: DnsAnswer[] = [];
  let at = head.questionEnd;
  for (let count = readU16(bytes, 6); count > 0; count--) {
    const record = readRecord(bytes, at);
    if (record === undefined) return undefined;
    if (record.class === CLASS_IN) {
      const answer = answerOf(bytes, record);
      if (answer === null) return undefined;
      if (answer !== undefined) answers.push(answer);
    }
    at = record.end;
  }
  return answers;
}

/** Whether an answer's question is the one that was asked: same type and class, same name in any case (RFC 4343). */
export function isSameQuestion(a: DnsQuestion, b: DnsQuestion): boolean {
  return a.type === b.type && a.class === b.class && a.name.toLowerCase() === b.name.toLowerCase();
}

/** A copy of a message with another id. */
export function withId(bytes: Uint8Array, id: number): Uint8Array {
  const copy = new Uint8Array(bytes);
  writeU16(copy, 0, id);
  return copy;
}

/**
 * The query as it is to be asked by UDP: a client that takes longer answers than go without fragments is said to take what does. A
 * longer answer comes truncated then, and the client asks by TCP. A query that is signed stays as it is.
 *
 * @param query one that `faultOfQuery` finds no fault with; others come back unchanged
 * @returns `query` itself where there is nothing to change, else a copy
 */
export function limitUdpAnswer(query: Uint8Array): Uint8Array {
  const head = readHead(query);
  if (head === undefined || faultOfQuery(query, head) !== undefined) return query;
  let sizeAt = -1;
  let at = head.questionEnd;
  for (let count = readU16(query, 10); count > 0; count--) {
    const record = readRecord(query, at);
    if (record === undefined || record.type === TYPE_TSIG || record.type === TYPE_SIG) return query;
    if (record.type === TYPE_OPT) sizeAt = record.dataAt - 8; // class, TTL and length stand before the data
    at = record.end;
  }
  if (sizeAt < 0 || readU16(query, sizeAt) <= MAX_UDP_BYTES) return query;
  const copy = new Uint8Array(query);
  writeU16(copy, sizeAt, MAX_UDP_BYTES);
  return copy;
}

/**
 * An answer of our own: the header and question of `query` with a code and nothing else; with EDNS where the query has it, and
 * then with the reason in words.
 *
 * @param query  octets of a query that has a header
 * @param reason why policy refuses it; absent: it is not policy's doing
 */
export function answerWithCode(query: Uint8Array, rcode: number, reason?: string): Uint8Array {
  const head = readHead(query);
  if (head === undefined) return new Uint8Array(0);
  const question = head.question === undefined ? [] : query.subarray(HEADER_BYTES, head.questionEnd);
  const kept = readU16(query, 2) & (OPCODE_BITS | FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED);
  const flags = FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | kept | rcode;
  const options = hasEdns(query, head) ? optRecord(reason) : [];
  return Uint8Array.from([
    ...u16(head.id),
    ...u16(flags),
    ...u16(question.length > 0 ? 1 : 0),
    ...u16(0),
    ...u16(0),
    ...u16(options.length > 0 ? 1 : 0),
    ...question,
    ...options,
  ]);
}

function hasEdns(query: Uint8Array, head: DnsHead): boolean {
  if (faultOfQuery(query, head) !== undefined) return false;
  let at = head.questionEnd;
  for (let count = readU16(query, 10); count > 0; count--) {
    const record = readRecord(query, at);
    if (record === undefined) return false;
    if (record.type === TYPE_OPT) return true;
    at = record.end;
  }
  return false;
}

function optRecord(reason: string | undefined): number[] {
  const text = reason === undefined ? [] : [...new TextEncoder().encode(reason)];
  const option = reason === undefined
    ? []
    : [...u16(OPTION_EXTENDED_ERROR), ...u16(2 + text.length), ...u16(EXTENDED_ERROR_BLOCKED), ...text];
  return [0, ...u16(TYPE_OPT), ...u16(MAX_UDP_BYTES), 0, 0, ...u16(0), ...u16(option.length), ...option];
}

interface ReadRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  readonly ttlSeconds: number;
  readonly dataAt: number;
  readonly end: number;
}

function readQuestion(bytes: Uint8Array, at: number): { value: DnsQuestion; end: number } | undefined {
  const name = readName(bytes, at);
  if (name === undefined || name.end + 4 > bytes.length) return undefined;
  return {
    value: { name: name.text, type: readU16(bytes, name.end), class: readU16(bytes, name.end + 2) },
    end: name.end + 4,
  };
}

function readRecord(bytes: Uint8Array, at: number): ReadRecord | undefined {
  const name = readName(bytes, at);
  if (name === undefined || name.end + 10 > bytes.length) return undefined;
  const dataAt = name.end + 10;
  const end = dataAt + readU16(bytes, name.end + 8);
  if (end > bytes.length) return undefined;
  const ttl = readU16(bytes, name.end + 4) * 0x10000 + readU16(bytes, name.end + 6);
  return {
    name: name.text,
    type: readU16(bytes, name.end),
    class: readU16(bytes, name.end + 2),
    ttlSeconds: ttl > 0x7fffffff ? 0 : ttl, // RFC 2181 §8: the top bit set counts as 0
    dataAt,
    end,
  };
}

/** @returns undefined for a type that does not matter, null for data that cannot be of its type */
function answerOf(bytes: Uint8Array, record: ReadRecord): DnsAnswer | undefined | null {
  const { name, ttlSeconds, dataAt, end } = record;
  if (record.type === TYPE_A) {
    return end - dataAt === 4 ? { name, ttlSeconds, address: formatAddress(bytes.slice(dataAt, end)) } : null;
  }
  if (record.type === TYPE_AAAA) {
    return end - dataAt === 16 ? { name, ttlSeconds, address: formatAddress(bytes.slice(dataAt, end)) } : null;
  }
  if (record.type !== TYPE_CNAME) return undefined;
  const target = readName(bytes, dataAt);
  return target !== undefined && target.end === end ? { name, ttlSeconds, target: target.text } : null;
}

/** @returns the offset one past `count` records, -1 when they run past the message */
function endOfRecords(bytes: Uint8Array, from: number, count: number): number {
  let at = from;
  for (let left = count; left > 0; left--) {
    const record = readRecord(bytes, at);
    if (record === undefined) return -1;
    at = record.end;
  }
  return at;
}

/** Reads a name. Pointers go back only, each further than the one before: the first question has none, nothing is before it. */
function readName(bytes: Uint8Array, start: number): { text: string; end: number } | undefined {
  let text = "";
  let at = start;
  let end = -1;
  let lowest = start;
  let totalBytes = 1;
  for (let pointers = 0; pointers <= MAX_POINTERS;) {
    if (at >= bytes.length) return undefined;
    const length = bytes[at]!;
    if (length === 0) return { text: text === "" ? "." : text, end: end < 0 ? at + 1 : end };
    if (length >= 0xc0) {
      if (at + 2 > bytes.length) return undefined;
      const target = readU16(bytes, at) & 0x3fff;
      if (target >= lowest || target < HEADER_BYTES) return undefined;
      if (end < 0) end = at + 2;
      at = lowest = target;
      pointers++;
      continue;
    }
    totalBytes += length + 1;
    if (length > 63 || totalBytes > MAX_NAME_BYTES || at + 1 + length > bytes.length) return undefined;
    text += `${labelText(bytes, at + 1, at + 1 + length)}.`;
    at += 1 + length;
  }
  return undefined;
}

/** Octets that are no letter, digit, `-` or `_` as `\DDD` (RFC 1035 §5.1). */
function labelText(bytes: Uint8Array, at: number, end: number): string {
  let text = "";
  for (let i = at; i < end; i++) {
    const octet = bytes[i]!;
    const isPlain = octet === 0x2d || octet === 0x5f || (octet >= 0x30 && octet <= 0x39) ||
      (octet >= 0x41 && octet <= 0x5a) || (octet >= 0x61 && octet <= 0x7a);
    text += isPlain ? String.fromCharCode(octet) : `\\${String(octet).padStart(3, "0")}`;
  }
  return text;
}

function u16(value: number): [number, number] {
  return [value >> 8, value & 255];
}

/**
 * The life of one question, however it came in: read, judge, forward, learn, answer, report. `dns_proxy.ts` brings the questions of
 * redirected flows, `dns_resolver.ts` those of programs that ask the local resolver.
 *
 * A question is judged by its name alone, whatever it asks for (Cilium too). Its octets, and those of the answer, pass as they
 * are but for the id, and by UDP the longest answer that is asked for: truncation and unknown records are the client's and the
 * server's own matter.
 */
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import { canonicalAddress } from "../../src/fqdn/cache.ts";
import {
  answerWithCode,
  type DnsHead,
  type DnsQuestion,
  faultOfQuery,
  RCODE_FORMAT_ERROR,
  RCODE_NAME_ERROR,
  RCODE_NO_ERROR,
  RCODE_REFUSED,
  RCODE_SERVER_FAILURE,
  readAnswers,
  readHead,
  withId,
} from "../../src/fqdn/message.ts";
import { nameOfRcode, nameOfType } from "../../src/fqdn/message_names.ts";
import { canonicalName, matchesPattern } from "../../src/fqdn/pattern.ts";
import { type Resolution, resolve } from "../../src/fqdn/resolution.ts";
import type { RuleRef } from "../../src/policy/explain.ts";
import { DROP_PROXY_REFUSED, FORWARD } from "../../src/verdict.ts";
import { messageOf } from "../errors.ts";
import { type DnsDoors, LEARN_WAIT_MS, MAX_QUERY_BYTES, MAX_WAITING } from "./dns_doors.ts";
import type { DnsFacts, L7RuleOf } from "./doors.ts";

/** One way that a question may take, and what judges it there. */
export interface DnsRoute {
  readonly flow: RedirectedFlow;
  /** rules of which one has to match; `open`: policy allows the flow as it is, and nothing is learned; or why it is dropped */
  readonly by: readonly L7RuleOf[] | "open" | { readonly refused: string };
}

/** What came of asking. */
export interface DnsOutcome<R extends DnsRoute> {
  readonly route: R;
  /** octets of the answer with any id; undefined: none came */
  readonly answer: Uint8Array | undefined;
  /** no answer at all goes to the client: it repeats its question by itself */
  readonly isSilent?: boolean;
}

/** A question that is on its way. */
export interface DnsErrand<R extends DnsRoute> {
  readonly outcome: Promise<DnsOutcome<R>>;
  /** The client repeated its question: send it once more. */
  repeat(): void;
}

/** Who asks, and where to. */
export interface DnsClient<R extends DnsRoute> {
  /** tells the clients of one desk apart, and the questions of one client by their ids */
  readonly key: string;
  /** The ways there are now; none: the question fails. Asked once per question. */
  routes(): readonly R[];
  /** @param routes those that allow the question, at least one */
  ask(query: Uint8Array, question: DnsQuestion, routes: readonly R[]): DnsErrand<R>;
  /** Sends octets to the client, if it is still there. */
  answer(message: Uint8Array): void;
}

/** How a question is judged on one way. */
interface Judgement<R extends DnsRoute> {
  readonly route: R;
  readonly isAllowed: boolean;
  readonly rule?: RuleRef;
  readonly reason?: string;
}

/** Judges and forwards questions, with one bound on how many wait at a time. */
export class DnsDesk {
  readonly #doors: DnsDoors;
  /** client and question -> how to send it again */
  readonly #waiting = new Map<string, () => void>();

  constructor(doors: DnsDoors) {
    this.#doors = doors;
  }

  /** Takes a question. Any octets are welcome; never throws, never rejects. @param query kept until the answer is out */
  async serve<R extends DnsRoute>(query: Uint8Array, client: DnsClient<R>): Promise<void> {
    try {
      await this.#serve(query, client);
    } catch (error) {
      this.#doors.log.error("dns question failed", { reason: messageOf(error) });
    }
  }

  async #serve<R extends DnsRoute>(query: Uint8Array, client: DnsClient<R>): Promise<void> {
    const head = readHead(query);
    if (head === undefined || head.isResponse) return;
    const key = `${client.key} ${head.id} ${head.question?.name} ${head.question?.type}`;
    const repeat = this.#waiting.get(key);
    if (repeat !== undefined) return repeat();
    const fault = query.length > MAX_QUERY_BYTES ? RCODE_FORMAT_ERROR : faultOfQuery(query, head);
    if (fault !== undefined) return client.answer(answerWithCode(query, fault));
    const question = head.question!;
    const routes = client.routes();
    if (routes.length === 0) return client.answer(answerWithCode(query, RCODE_SERVER_FAILURE));
    const judged = routes.map((route) => judge(route, question));
    const allowed = judged.filter((one) => one.isAllowed);
    if (allowed.length === 0) return this.#refuse(query, question, client, judged[0]!);
    if (this.#waiting.size >= MAX_WAITING) {
      this.#report(question, allowed[0]!, { rcode: "SERVFAIL" }, "too many questions at once");
      return client.answer(answerWithCode(query, RCODE_SERVER_FAILURE));
    }
    const errand = client.ask(query, question, allowed.map((one) => one.route));
    this.#waiting.set(key, () => errand.repeat());
    const outcome = await errand.outcome.finally(() => this.#waiting.delete(key));
    await this.#pass(query, head, client, allowed.find((one) => one.route === outcome.route)!, outcome);
  }

  /** Hands the answer on, after what it teaches is in force. */
  async #pass<R extends DnsRoute>(
    query: Uint8Array,
    { id, question: asked }: DnsHead,
    client: DnsClient<R>,
    judgement: Judgement<R>,
    { answer, isSilent }: DnsOutcome<R>,
  ): Promise<void> {
    const question = asked!;
    if (answer === undefined) {
      this.#report(question, judgement, { rcode: isSilent === true ? "" : "SERVFAIL" }, "the server did not answer");
      if (isSilent !== true) client.answer(answerWithCode(query, RCODE_SERVER_FAILURE));
      return;
    }
    const head = readHead(answer)!;
    const resolution = resolutionOf(answer, head, question);
    if (resolution === "broken") {
      this.#report(question, judgement, { rcode: "SERVFAIL" }, "the server's answer cannot be read");
      return client.answer(answerWithCode(query, RCODE_SERVER_FAILURE));
    }
    if (resolution !== undefined && judgement.route.by !== "open") await this.#learn(question, resolution);
    client.answer(withId(answer, id));
    this.#report(question, judgement, { rcode: nameOfRcode(head.rcode), addresses: resolution?.addresses ?? [] });
  }

  async #learn(question: DnsQuestion, resolution: Resolution): Promise<void> {
    const name = canonicalName(question.name);
    if (name === undefined || !this.#doors.patterns().some((pattern) => matchesPattern(pattern, name))) return;
    let cancel = () => {};
    const tooLong = new Promise<void>((resolve) => {
      cancel = this.#doors.timers.after(LEARN_WAIT_MS, resolve);
    });
    try {
      await Promise.race([this.#doors.learn(name, resolution.addresses, resolution.ttlSeconds), tooLong]);
    } catch (error) {
      this.#doors.log.warn("dns answer not learned", { name, reason: messageOf(error) });
    } finally {
      cancel();
    }
  }

  #refuse<R extends DnsRoute>(query: Uint8Array, question: DnsQuestion, client: DnsClient<R>, by: Judgement<R>): void {
    const rcode = this.#doors.rejectCode() === "nameError" ? RCODE_NAME_ERROR : RCODE_REFUSED;
    client.answer(answerWithCode(query, rcode, `edgemesh: ${by.reason}`));
    this.#report(question, by, { rcode: nameOfRcode(rcode) }, by.reason);
  }

  #report<R extends DnsRoute>(
    question: DnsQuestion,
    judgement: Judgement<R>,
    facts: Pick<DnsFacts, "rcode"> & Partial<DnsFacts>,
    reason?: string,
  ): void {
    this.#doors.record({
      unixMs: this.#doors.unixMs(),
      flow: judgement.route.flow,
      kind: "dns",
      verdict: judgement.isAllowed ? FORWARD : DROP_PROXY_REFUSED,
      ...(judgement.rule === undefined ? {} : { rule: judgement.rule }),
      dns: { name: question.name, type: nameOfType(question.type), addresses: [], ...facts },
      ...(reason === undefined ? {} : { reason }),
    });
  }
}

function judge<R extends DnsRoute>(route: R, question: DnsQuestion): Judgement<R> {
  if (route.by === "open") return { route, isAllowed: true };
  if ("refused" in route.by) {
    return { route, isAllowed: false, reason: `policy drops the way there: ${route.by.refused}` };
  }
  if (route.by.length === 0) return { route, isAllowed: false, reason: "no rule allows the flow any more" };
  const name = canonicalName(question.name);
  if (name === undefined) return { route, isAllowed: false, reason: "no rule can allow such a name" };
  for (const { rule, l7 } of route.by) {
    if (l7.kind === "dns" && l7.rules.some(({ pattern }) => matchesPattern(pattern, name))) {
      return { route, isAllowed: true, rule };
    }
  }
  return { route, isAllowed: false, reason: "no DNS rule allows the name" };
}

/** @returns undefined when there is nothing to learn; `broken` for records that cannot be read, though the answer says it is whole */
function resolutionOf(answer: Uint8Array, head: DnsHead, question: DnsQuestion): Resolution | undefined | "broken" {
  if (head.question === undefined) return undefined;
  const answers = readAnswers(answer, head);
  if (answers === undefined) return head.isTruncated ? undefined : "broken";
  if (head.rcode !== RCODE_NO_ERROR) return undefined;
  const found = resolve(question, answers);
  return found && { ...found, addresses: found.addresses.map((address) => canonicalAddress(address)!) };
}

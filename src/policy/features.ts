/** What readers of policies may count on: the agent's flags, and what reads regular expressions. */

export interface PolicyFeatures {
  /** what is wrong with a regular expression (RE2); `undefined`: nothing. Absent: expressions are not looked into */
  readonly checkRegex?: (source: string) => string | undefined;
  /** `fromNodes`, `toNodes` and `nodes` (`enable-node-selector-labels`); off when absent, as in Cilium */
  readonly nodeSelectorLabels?: boolean;
  /** L7 rules (`enable-l7-proxy`); on when absent */
  readonly l7Proxy?: boolean;
  /** `icmps` (`enable-icmp-rules`); on when absent */
  readonly icmpRules?: boolean;
  /** GRE, ESP and so on (`enable-extended-ip-protocols`); off when absent */
  readonly extendedProtocols?: boolean;
}

/**
 * The chart for the README: bars by hand, without a library. Its colours stand on light and dark grounds alike, the grey of the
 * texts with a contrast of 4.2 and more: what the viewer's preference says need not be what the page around the image looks like.
 */

/** One group of bars. */
export interface Panel {
  readonly title: string;
  /** "Gbit/s, more is better" */
  readonly unit: string;
  readonly digits: number;
  readonly bars: readonly { readonly title: string; readonly value: number; readonly isOurs: boolean }[];
}

const WIDTH = 760;
const LABEL = 250;
const LINE = 22;
const BAR = 14;
const HEAD = 44;
const MARGIN = 12;
/** room for the number behind the longest bar */
const NUMBER = 64;

/** as `deno fmt` lays it out, like all of the file, so that a chart in the tree is as it was made */
const STYLE = `  text {
    font: 12px system-ui,sans-serif;
    fill: #737c86;
  }
  .t {
    font-weight: 600;
    font-size: 14px;
  }
  .o {
    fill: #2f81f7;
  }
  .p {
    fill: #8b949e;
  }
  .a {
    stroke: #8b949e;
    stroke-opacity: .5;
  }
`;

/** @param caption what was measured, where and when: lines below the bars */
export function chartOf(panels: readonly Panel[], caption: readonly string[]): string {
  let y = MARGIN;
  const parts: string[] = [];
  for (const panel of panels.filter(({ bars }) => bars.length > 0)) {
    parts.push(
      `<text class="t" x="${MARGIN}" y="${y + 16}">${escaped(panel.title)}</text>`,
      `<text x="${LABEL}" y="${y + 16}">${escaped(panel.unit)}</text>`,
    );
    const top = y + HEAD - LINE + 4;
    const most = Math.max(...panel.bars.map(({ value }) => value), Number.MIN_VALUE);
    panel.bars.forEach(({ title, value, isOurs }, i) => {
      const at = top + i * LINE;
      const width = Math.max(1, Math.round((value / most) * (WIDTH - LABEL - NUMBER)));
      parts.push(
        `<text x="${LABEL - 8}" y="${at + 12}" text-anchor="end">${escaped(title)}</text>`,
        `<rect class="${isOurs ? "o" : "p"}" x="${LABEL}" y="${at}" width="${width}" height="${BAR}" rx="2" />`,
        `<text x="${LABEL + width + 6}" y="${at + 12}">${value.toFixed(panel.digits)}</text>`,
      );
    });
    const bottom = top + panel.bars.length * LINE - (LINE - BAR);
    parts.push(`<line class="a" x1="${LABEL}" y1="${top - 3}" x2="${LABEL}" y2="${bottom + 3}" />`);
    y = bottom + 2 * MARGIN;
  }
  for (const line of caption) {
    parts.push(`<text x="${MARGIN}" y="${y + 8}">${escaped(line)}</text>`);
    y += LINE - 4;
  }
  const height = y + MARGIN / 2;
  const title = escaped(panels.map((panel) => panel.title).join("; "));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
  <title>${title}</title>
  <style>
${STYLE}  </style>
${parts.map((part) => `  ${part}`).join("\n")}
</svg>
`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** Groups of the kernels' contract that are not done yet, and why: none now. */
export const NOT_YET: Readonly<Record<string, string>> = {}

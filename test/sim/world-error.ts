/** What ends a history: a broken promise that a world itself noticed. */
export class WorldError extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

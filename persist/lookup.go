package persist

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// UserByEmail finds a user by email, whatever its case.
func (b *Books) UserByEmail(ctx context.Context, email string) (engine.User, error) {
	var u engine.User
	err := b.pool.QueryRow(ctx, "SELECT id, name, email, created_at FROM users WHERE lower(email) = lower($1)", email).
		Scan(&u.ID, &u.Name, &u.Email, &u.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return engine.User{}, engine.ErrUserNotFound
	}
	if err != nil {
		return engine.User{}, unavailable("reading the user", err)
	}
	return u, nil
}

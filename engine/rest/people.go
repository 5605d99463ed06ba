package rest

import (
	"context"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

type userBody struct {
	ID        int64     `json:"id,string"`
	Name      string    `json:"name"`
	Email     string    `json:"email"`
	Balance   int64     `json:"balance"`
	CreatedAt time.Time `json:"created_at"`
}

func (s *Server) createUser(ctx *fasthttp.RequestCtx, _ caller) error {
	var in struct {
		Name  string `json:"name"`
		Email string `json:"email"`
	}
	if err := decode(ctx, &in); err != nil {
		return err
	}
	if err := checkName("name", in.Name); err != nil {
		return err
	}
	if err := checkEmail(in.Email); err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	user, err := s.cfg.Registry.CreateUser(bound, in.Name, in.Email)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusCreated, userBody{
		ID: user.ID, Name: user.Name, Email: user.Email, CreatedAt: user.CreatedAt.UTC(),
	})
}

func (s *Server) getUser(ctx *fasthttp.RequestCtx, who caller) error {
	id, err := pathID(ctx, "the user id")
	if err != nil {
		return err
	}
	acting, err := s.acting(ctx, who, 0)
	switch {
	case err != nil:
		return err
	case !who.admin && acting != id:
		return forbidden.with("A buyer may read their own user only.")
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	balance, err := s.cfg.Sales.Balance(bound, id)
	if err != nil {
		return err
	}
	user, err := s.cfg.Registry.User(bound, id)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, userBody{
		ID: id, Name: user.Name, Email: user.Email, Balance: balance, CreatedAt: user.CreatedAt.UTC(),
	})
}

// checkName takes 1 to 200 characters that can be shown.
func checkName(field, name string) error {
	if strings.TrimSpace(name) == "" || utf8.RuneCountInString(name) > engine.NameMax {
		return validationFailed.with("%s must have 1 to %d characters.", field, engine.NameMax)
	}
	if strings.ContainsFunc(name, unicode.IsControl) {
		return validationFailed.with("%s must not hold control characters.", field)
	}
	return nil
}

const emailMax = 254 // RFC 5321

func checkEmail(email string) error {
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Address != email || len(email) > emailMax {
		return validationFailed.with("email must be an address like name@example.com.")
	}
	return nil
}

func pathID(ctx *fasthttp.RequestCtx, name string) (int64, error) {
	text, _ := ctx.UserValue("id").(string)
	if text == "" {
		return 0, pathNotFound
	}
	return parseID(name, text)
}

type chargeBody struct {
	UserID   int64 `json:"user_id,string"`
	Balance  int64 `json:"balance"`
	Amount   int64 `json:"amount"`
	ChargeID int64 `json:"charge_id,string"`
}

func (s *Server) charge(ctx *fasthttp.RequestCtx, who caller) error {
	var in struct {
		UserID id    `json:"user_id"`
		Amount int64 `json:"amount"`
	}
	if err := decode(ctx, &in); err != nil {
		return err
	}
	user, key, err := s.actingWithKey(ctx, who, in.UserID)
	if err != nil {
		return err
	}
	charged, replayed, err := s.cfg.Sales.Charge(context.Background(), engine.ChargeRequest{
		UserID: user, Amount: in.Amount, Key: key,
	})
	if err != nil {
		return err
	}
	return replyOnce(ctx, fasthttp.StatusOK, replayed, chargeBody{
		UserID: user, Balance: charged.Balance, Amount: charged.Amount, ChargeID: charged.ChargeID,
	})
}

func (s *Server) balance(ctx *fasthttp.RequestCtx, who caller) error {
	user, err := s.acting(ctx, who, 0)
	if err != nil {
		return err
	}
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	balance, err := s.cfg.Sales.Balance(bound, user)
	if err != nil {
		return err
	}
	return reply(ctx, fasthttp.StatusOK, struct {
		UserID  int64 `json:"user_id,string"`
		Balance int64 `json:"balance"`
	}{user, balance})
}
